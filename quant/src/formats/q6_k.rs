//! q6_k (being written).

/// A block.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ6K(pub [u8; 210]);

/// Decodes.
pub fn decode(blocks: &[BlockQ6K], out: &mut [f32]) {
    let _ = (blocks, out);
    todo!()
}

/// Encodes.
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ6K]) {
    let _ = (x, importance, out);
    todo!()
}

/// Dot product.
#[inline(always)]
pub fn dot(w: &[BlockQ6K], a: &[super::q8_k::BlockQ8K]) -> f32 {
    let _ = (w, a);
    todo!()
}
