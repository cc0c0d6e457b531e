//! q4_1 (being written).

/// A block.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ4_1(pub [u8; 20]);

/// Decodes.
pub fn decode(blocks: &[BlockQ4_1], out: &mut [f32]) {
    let _ = (blocks, out);
    todo!()
}

/// Encodes.
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockQ4_1]) {
    let _ = (x, importance, out);
    todo!()
}

/// Dot product.
#[inline(always)]
pub fn dot(w: &[BlockQ4_1], a: &[super::q8_a::BlockQ8A]) -> f32 {
    let _ = (w, a);
    todo!()
}
