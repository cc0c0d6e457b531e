//! q8_0 (being written).

/// A block.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8_0(pub [u8; 34]);

/// Decodes.
pub fn decode(blocks: &[BlockQ8_0], out: &mut [f32]) {
    let _ = (blocks, out);
    todo!()
}

/// Encodes.
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ8_0]) {
    let _ = (x, importance, out);
    todo!()
}

/// Dot product.
#[inline(always)]
pub fn dot(w: &[BlockQ8_0], a: &[super::q8_a::BlockQ8A]) -> f32 {
    let _ = (w, a);
    todo!()
}
