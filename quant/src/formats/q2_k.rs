//! q2_k (being written).

/// A block.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ2K(pub [u8; 84]);

/// Decodes.
pub fn decode(blocks: &[BlockQ2K], out: &mut [f32]) {
    let _ = (blocks, out);
    todo!()
}

/// Encodes.
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ2K]) {
    let _ = (x, importance, out);
    todo!()
}

/// Dot product.
#[inline(always)]
pub fn dot(w: &[BlockQ2K], a: &[super::q8_k::BlockQ8K]) -> f32 {
    let _ = (w, a);
    todo!()
}
