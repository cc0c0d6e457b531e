//! The directory of a zip archive as `torch.save` writes it: stored members only, zip64 where it is large.
//!
//! In comes a file, out go the members' names and the ranges of their bytes. Stricter than an unzip program:
//! what could mean two things (a second member of one name, bytes before the archive, members that overlap,
//! names with paths upwards) is refused.

use std::collections::HashMap;

use super::error::{Error, shown};
use super::input::Input;

/// A shard of the largest BLOOM has some hundred members.
const MAX_MEMBERS: u64 = 100_000;
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;
/// End record and the longest comment.
const END_BYTES: u64 = 22;
const MAX_COMMENT: u64 = 0xffff;

const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;

/// A member: its bytes lie at `at..at + len` of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Member {
    pub at: u64,
    pub len: u64,
    pub crc: u32,
}

/// The members by name.
pub(super) type Members = HashMap<String, Member>;

/// Little-endian fields of a record, counted from its start in the file.
struct Fields<'a> {
    file: &'a str,
    at: u64,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take<const N: usize>(&self, offset: usize) -> Result<[u8; N], Error> {
        self.slice(offset, N).map(|s| s.try_into().expect("N bytes"))
    }

    fn slice(&self, offset: usize, len: usize) -> Result<&'a [u8], Error> {
        let end = offset.checked_add(len);
        end.and_then(|end| self.bytes.get(offset..end)).ok_or_else(|| {
            let left = self.bytes.len().saturating_sub(offset);
            self.wrong(offset, format!("{len} bytes of a zip record"), format!("{left}"))
        })
    }

    fn u16(&self, offset: usize) -> Result<u16, Error> {
        self.take(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32, Error> {
        self.take(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, Error> {
        self.take(offset).map(u64::from_le_bytes)
    }

    fn wrong(&self, offset: usize, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::format(self.file, self.at + offset as u64, expected, found)
    }

    fn signature(&self, want: u32, what: &str) -> Result<(), Error> {
        let found = self.u32(0)?;
        if found == want { Ok(()) } else { Err(self.wrong(0, what, format!("{found:#010x}"))) }
    }
}

/// Whether the file begins like a zip archive.
pub(super) fn is_zip(input: &Input) -> Result<bool, Error> {
    let mut magic = [0; 4];
    if input.len() < 4 {
        return Ok(false);
    }
    input.read_at(0, &mut magic)?;
    Ok(u32::from_le_bytes(magic) == LOCAL || u32::from_le_bytes(magic) == END)
}

/// Reads the directory and every member's own header.
pub(super) fn members(input: &Input) -> Result<Members, Error> {
    let file = input.name();
    let directory = find_directory(input)?;
    let bytes = input.read_vec(directory.at, directory.len, MAX_DIRECTORY_BYTES, "a zip directory")?;
    let mut rest = Fields { file, at: directory.at, bytes: &bytes };
    let mut members = Members::new();
    let mut ranges = Vec::new();
    for _ in 0..directory.members {
        let (name, header, member, used) = central(&rest)?;
        let member = local(input, directory.at, name, header, member)?;
        ranges.push((header, member.at + member.len));
        if members.insert(name.to_owned(), member).is_some() {
            return Err(rest.wrong(46, "each member once", format!("a second {}", shown(name))));
        }
        rest = Fields { file, at: rest.at + used as u64, bytes: &rest.bytes[used..] };
    }
    if !rest.bytes.is_empty() {
        return Err(rest.wrong(
            0,
            "the end of the zip directory",
            format!("{} bytes more", rest.bytes.len()),
        ));
    }
    ranges.sort_unstable();
    if let Some(pair) = ranges.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        let expected = format!("a zip member after byte {}", pair[0].1);
        return Err(Error::format(file, pair[1].0, expected, "one that overlaps the one before"));
    }
    Ok(members)
}

struct Directory {
    at: u64,
    len: u64,
    members: u64,
}

fn find_directory(input: &Input) -> Result<Directory, Error> {
    let file = input.name();
    let tail_at = input.len().saturating_sub(END_BYTES + MAX_COMMENT);
    let tail = input.read_vec(tail_at, input.len() - tail_at, u64::MAX, "the end of a zip archive")?;
    let is_end = |&i: &usize| {
        let record = &tail[i..];
        record[..4] == END.to_le_bytes()
            && usize::from(u16::from_le_bytes([record[20], record[21]])) + END_BYTES as usize == record.len()
    };
    let last = tail.len().checked_sub(END_BYTES as usize);
    let Some(i) = last.and_then(|last| (0..=last).rev().find(is_end)) else {
        return Err(Error::format(file, tail_at, "a zip end record (is the file complete?)", "none"));
    };
    let end = Fields { file, at: tail_at + i as u64, bytes: &tail[i..] };
    let end64 = match end.at.checked_sub(20) {
        Some(at) => {
            let mut locator = [0; 20];
            input.read_at(at, &mut locator)?;
            (locator[..4] == LOCATOR64.to_le_bytes()).then_some((at, locator))
        }
        None => None,
    };
    let (disks, members, len, at, stop) = if let Some((locator_at, locator)) = end64 {
        let locator = Fields { file, at: locator_at, bytes: &locator };
        let at = locator.u64(8)?;
        let mut record = [0; 56];
        input.read_at(at, &mut record)?;
        let record = Fields { file, at, bytes: &record };
        record.signature(END64, "a zip64 end record")?;
        // The size does not count the first 12 bytes; the record reaches to its locator.
        if at.checked_add(12).and_then(|n| n.checked_add(record.u64(4).ok()?)) != Some(locator_at) {
            let expected = format!("the size of a zip64 end record up to byte {locator_at}");
            return Err(record.wrong(4, expected, record.u64(4)?.to_string()));
        }
        let disks =
            (record.u32(16)?, record.u32(20)?, record.u64(24)?, u64::from(locator.u32(16)?.max(1) - 1));
        let (members, len, start) = (record.u64(32)?, record.u64(40)?, record.u64(48)?);
        // The old record repeats each number that fits it.
        let agree = |old: u64, new: u64, full: u64| old == full || old == new;
        if !agree(end.u16(10)?.into(), members, 0xffff)
            || !agree(end.u32(12)?.into(), len, 0xffff_ffff)
            || !agree(end.u32(16)?.into(), start, 0xffff_ffff)
        {
            return Err(end.wrong(10, "the numbers of the zip64 end record", "others"));
        }
        (disks.0 == 0 && disks.1 == 0 && disks.2 == members && disks.3 == 0, members, len, start, at)
    } else {
        let members = end.u16(10)?;
        let disks = end.u16(4)? == 0 && end.u16(6)? == 0 && end.u16(8)? == members;
        (disks, u64::from(members), u64::from(end.u32(12)?), u64::from(end.u32(16)?), end.at)
    };
    if !disks {
        return Err(end.wrong(4, "a zip archive in one part", "several"));
    }
    if at.checked_add(len) != Some(stop) {
        return Err(end.wrong(
            12,
            format!("a zip directory that ends at byte {stop}"),
            format!("{at} + {len}"),
        ));
    }
    if members > MAX_MEMBERS || members > len / 46 {
        let most = MAX_MEMBERS.min(len / 46);
        return Err(end.wrong(10, format!("at most {most} zip members"), members.to_string()));
    }
    Ok(Directory { at, len, members })
}

/// One record of the directory: name, offset of the member's own header, the member, bytes of the record.
fn central<'a>(record: &Fields<'a>) -> Result<(&'a str, u64, Member, usize), Error> {
    record.signature(CENTRAL, "a zip directory record")?;
    stored(record, 8, 10)?;
    let crc = record.u32(16)?;
    let (packed, unpacked) = (record.u32(20)?, record.u32(24)?);
    let name_len = usize::from(record.u16(28)?);
    let extra_len = usize::from(record.u16(30)?);
    let comment_len = usize::from(record.u16(32)?);
    let (disk, offset) = (record.u16(34)?, record.u32(42)?);
    let name = name(record, 46, name_len)?;
    let extra_at = 46 + name_len;
    let extra = record.slice(extra_at, extra_len)?;
    record.slice(extra_at + extra_len, comment_len)?;
    let mut wide = Wide::new(record, extra_at, extra)?;
    let unpacked = wide.or(unpacked)?;
    let packed = wide.or(packed)?;
    let offset = wide.or(offset)?;
    if disk != 0 && disk != 0xffff {
        return Err(record.wrong(34, "a member of the first part", format!("part {disk}")));
    }
    if packed != unpacked {
        return Err(record.wrong(20, format!("{unpacked} bytes, as many as unpacked"), packed.to_string()));
    }
    let used = extra_at + extra_len + comment_len;
    Ok((name, offset, Member { at: 0, len: unpacked, crc }, used))
}

/// Checks a member's own header against the directory and finds its bytes, which end before `stop`.
fn local(input: &Input, stop: u64, name_want: &str, at: u64, member: Member) -> Result<Member, Error> {
    let file = input.name();
    let outside = |found: String| {
        let expected = format!("member {} before byte {stop}", shown(name_want));
        Err(Error::format(file, at, expected, found))
    };
    if at.checked_add(30).is_none_or(|end| end > stop) {
        return outside(format!("its header at {at}"));
    }
    let mut fixed = [0; 30];
    input.read_at(at, &mut fixed)?;
    let head = Fields { file, at, bytes: &fixed };
    head.signature(LOCAL, &format!("the header of zip member {}", shown(name_want)))?;
    let (name_len, extra_len) = (head.u16(26)?, head.u16(28)?);
    let variable = u64::from(name_len) + u64::from(extra_len);
    if at + 30 + variable > stop {
        return outside(format!("a header of {} bytes", 30 + variable));
    }
    let bytes = input.read_vec(at, 30 + variable, u64::MAX, "a zip header")?;
    let head = Fields { file, at, bytes: &bytes };
    stored(&head, 6, 8)?;
    let here = name(&head, 30, name_len.into())?;
    if here != name_want {
        return Err(head.wrong(30, format!("the name {}", shown(name_want)), shown(here)));
    }
    let extra_at = 30 + usize::from(name_len);
    let mut wide = Wide::new(&head, extra_at, head.slice(extra_at, extra_len.into())?)?;
    // Sizes and sum may follow the data instead of being here (flag 8): zero then, or as in the directory.
    let later = head.u16(6)? & 8 != 0;
    for offset in [22, 18] {
        let size = wide.or(head.u32(offset)?)?;
        if size != member.len && !(later && size == 0) {
            return Err(head.wrong(
                offset,
                format!("{} bytes as in the zip directory", member.len),
                size.to_string(),
            ));
        }
    }
    let start = at + 30 + variable;
    if start.checked_add(member.len).is_none_or(|end| end > stop) {
        return outside(format!("{} bytes from {start}", member.len));
    }
    Ok(Member { at: start, ..member })
}

fn stored(record: &Fields<'_>, flags: usize, method: usize) -> Result<(), Error> {
    if record.u16(flags)? & 0x2041 != 0 {
        return Err(record.wrong(flags, "a zip member that is not encrypted", "one that is"));
    }
    match record.u16(method)? {
        0 => Ok(()),
        8 => Err(record.wrong(method, "a stored zip member", "a deflated one (packed again by hand?)")),
        other => Err(record.wrong(method, "a stored zip member", format!("method {other}"))),
    }
}

fn name<'a>(record: &Fields<'a>, offset: usize, len: usize) -> Result<&'a str, Error> {
    let bytes = record.slice(offset, len)?;
    let name = std::str::from_utf8(bytes).map_err(|_| {
        record.wrong(offset, "a member name in UTF-8", format!("{} other bytes", bytes.len()))
    })?;
    // An empty part is an absolute name, a doubled slash or a directory.
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if name.split('/').any(bad) || name.chars().any(|c| c == '\\' || c == ':' || c.is_control()) {
        return Err(record.wrong(offset, "a plain member name", shown(name)));
    }
    Ok(name)
}

/// The zip64 field of an extra area: 64-bit values, in order, for the 32-bit fields that are all ones.
struct Wide<'a, 'b> {
    record: &'b Fields<'a>,
    at: usize,
    values: &'a [u8],
}

impl<'a, 'b> Wide<'a, 'b> {
    fn new(record: &'b Fields<'a>, mut at: usize, mut extra: &'a [u8]) -> Result<Self, Error> {
        let mut found = None;
        // Fewer than 4 bytes at the end are padding.
        while let [a, b, c, d, rest @ ..] = extra {
            let len = usize::from(u16::from_le_bytes([*c, *d]));
            let Some(values) = rest.get(..len) else {
                return Err(record.wrong(
                    at,
                    format!("an extra field of {len} bytes"),
                    rest.len().to_string(),
                ));
            };
            if u16::from_le_bytes([*a, *b]) == 1 && found.replace((at + 4, values)).is_some() {
                return Err(record.wrong(at, "one zip64 field", "a second"));
            }
            extra = &rest[len..];
            at += 4 + len;
        }
        let (at, values) = found.unwrap_or((at, &[]));
        Ok(Self { record, at, values })
    }

    fn or(&mut self, narrow: u32) -> Result<u64, Error> {
        if narrow != u32::MAX {
            return Ok(narrow.into());
        }
        let Some((value, rest)) = self.values.split_first_chunk::<8>() else {
            return Err(self.record.wrong(self.at, "a 64-bit size in a zip64 field", "none"));
        };
        self.values = rest;
        self.at += 8;
        Ok(u64::from_le_bytes(*value))
    }
}
