//! iq4_nl (being written).

/// A block.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIq4Nl(pub [u8; 18]);

/// Decodes.
pub fn decode(blocks: &[BlockIq4Nl], out: &mut [f32]) {
    let _ = (blocks, out);
    todo!()
}

/// Encodes.
pub fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [BlockIq4Nl]) {
    let _ = (x, importance, out);
    todo!()
}

/// Dot product.
#[inline(always)]
pub fn dot(w: &[BlockIq4Nl], a: &[super::q8_a::BlockQ8A]) -> f32 {
    let _ = (w, a);
    todo!()
}
