//! iq4_xs (being written).

/// A block.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIq4Xs(pub [u8; 136]);

/// Decodes.
pub fn decode(blocks: &[BlockIq4Xs], out: &mut [f32]) {
    let _ = (blocks, out);
    todo!()
}

/// Encodes.
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockIq4Xs]) {
    let _ = (x, importance, out);
    todo!()
}

/// Dot product.
#[inline(always)]
pub fn dot(w: &[BlockIq4Xs], a: &[super::q8_k::BlockQ8K]) -> f32 {
    let _ = (w, a);
    todo!()
}
