//! Which rows of the input the lines of a file are, as text for a manifest.
//!
//! Differences from one row to the next (the first from -1, less one), zigzag, seven bits a byte with the
//! lowest first, in Base64: a byte or two a row, also for a shard.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The text for rows in the order of the lines.
pub(super) fn encode(rows: impl IntoIterator<Item = u32>) -> String {
    let mut bytes = Vec::new();
    let mut expected = 0_i64;
    for row in rows {
        let difference = i64::from(row) - expected;
        expected = i64::from(row) + 1;
        let mut rest = (difference << 1 ^ difference >> 63) as u64;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    STANDARD.encode(bytes)
}

/// The rows of a text, as many as `lines`, each below `limit`; `None` where it says anything else.
pub(super) fn decode(text: &str, lines: usize, limit: usize) -> Option<Vec<u32>> {
    let bytes = STANDARD.decode(text).ok()?;
    // A row is at least a byte: a false number of lines reserves nothing.
    if lines > bytes.len() {
        return None;
    }
    let mut rows = Vec::with_capacity(lines);
    let mut expected = 0_i64;
    let (mut number, mut shift) = (0_u64, 0);
    for byte in bytes {
        // A difference of two 32-bit numbers has 33 bits, with zigzag 34.
        if shift > 28 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            let row = expected + ((number >> 1) as i64 ^ -((number & 1) as i64));
            let row = u32::try_from(row).ok().filter(|&row| (row as usize) < limit)?;
            expected = i64::from(row) + 1;
            rows.push(row);
            (number, shift) = (0, 0);
        }
    }
    (shift == 0 && rows.len() == lines).then_some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        for rows in [vec![], vec![0, 1, 2, 3], vec![5, 0, u32::MAX - 1, 7, 6], (0..999).step_by(7).collect()]
        {
            let text = encode(rows.iter().copied());
            assert_eq!(decode(&text, rows.len(), u32::MAX as usize), Some(rows.clone()));
            assert_eq!(decode(&text, rows.len() + 1, usize::MAX), None);
            let most = rows.iter().max().map_or(0, |&row| row as usize);
            assert_eq!(decode(&text, rows.len(), most), (most == 0 && rows.is_empty()).then_some(vec![]));
        }
        // In order a byte a row.
        assert_eq!(encode(0..6), "AAAAAAAA");
    }

    #[test]
    fn false_texts_are_refused() {
        for bytes in [&[0xff; 12][..], &[0x80], &[1], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]] {
            assert_eq!(decode(&STANDARD.encode(bytes), 1, usize::MAX), None, "{bytes:?}");
        }
        assert_eq!(decode("!", 0, 9), None);
    }
}
