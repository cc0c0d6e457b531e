//! `pytorch_model.bin`: a zip archive of one pickle, which describes tensors, and one member per storage.

use super::dtype::Dtype;
use super::error::{Error, shown};
use super::input::Input;
use super::rows::{Place, StoredSum, product};
use super::tensor::{Entry, SourceTensor};
use super::{pickle, zip};

/// The pickle of a shard of the largest BLOOM has some 100 KB.
const MAX_PICKLE_BYTES: u64 = 32 << 20;

/// Lists the tensors of `input`, which is number `index` of the checkpoint, and the names of entries that
/// hold no tensor.
pub(super) fn list(input: &Input, index: usize) -> Result<(Vec<Entry>, Vec<String>), Error> {
    let file = input.name();
    if !zip::is_zip(input)? {
        return Err(Error::format(
            file,
            0,
            "the zip archive that torch.save has written since PyTorch 1.6",
            "something else, perhaps its older format: load it with PyTorch where you trust it \
             and save it again, or use safetensors",
        ));
    }
    let members = zip::members(input)?;
    let mut pickles = members
        .keys()
        .filter(|name| name.strip_suffix("/data.pkl").is_some_and(|prefix| !prefix.contains('/')));
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err(Error::layout(file, "one member NAME/data.pkl", "none or several"));
    };
    let prefix = pickle.strip_suffix("data.pkl").unwrap_or_default();
    if let Some(order) = members.get(&format!("{prefix}byteorder")) {
        let order = input.read_vec(order.at, order.len, 16, "the member byteorder")?;
        if order != b"little" {
            let found = shown(&String::from_utf8_lossy(&order));
            return Err(Error::layout(format!("{file}!{prefix}byteorder"), "little", found));
        }
    }
    let member = members[pickle];
    let bytes = input.read_vec(member.at, member.len, MAX_PICKLE_BYTES, "a pickle")?;
    let name = format!("{file}!{pickle}");
    let crc = crc32fast::hash(&bytes);
    if crc != member.crc {
        let (expected, found) = (format!("CRC-32 {:08x}", member.crc), format!("{crc:08x}"));
        return Err(Error::format(&name, 0, expected, found));
    }
    let pickle::StateDict { tensors: state, others } = pickle::state_dict(&name, &bytes)?;
    let mut entries = Vec::with_capacity(state.len());
    for (tensor, t) in state {
        let storage = t.storage;
        let wrong = |at: u64, expected: String, found: String| {
            Error::format(&name, at, format!("tensor {} with {expected}", shown(tensor)), found)
        };
        let key_is_plain = !storage.key.is_empty() && !storage.key.contains(['/', '\\']);
        let Some(data) = members.get(&format!("{prefix}data/{}", storage.key)).filter(|_| key_is_plain)
        else {
            let expected = "the key of a member below data/".into();
            return Err(wrong(storage.at, expected, shown(storage.key)));
        };
        if storage.count.checked_mul(storage.kind.bytes) != Some(data.len) {
            let expected = format!("a storage of {} x {} bytes", storage.count, storage.kind.bytes);
            return Err(wrong(storage.at, expected, format!("data/{} of {}", shown(storage.key), data.len)));
        }
        let place = Place {
            input: index,
            base: data.at,
            storage: storage.count,
            first: t.offset,
            strides: t.strides,
            sum: Some(StoredSum { bytes: data.len, crc: data.crc }),
        };
        place.check(&t.shape).map_err(|(expected, found)| wrong(t.at, expected, found))?;
        let dtype = match storage.kind.dtype {
            "F32" => Dtype::F32,
            "F16" => Dtype::F16,
            "BF16" => Dtype::BF16,
            other => Dtype::Other(other.into()),
        };
        // Fits: not more elements than the storage has.
        let bytes = product(&t.shape).unwrap_or(0) * storage.kind.bytes;
        let tensor = SourceTensor { name: tensor.into(), shape: t.shape, dtype, file: file.into(), bytes };
        entries.push(Entry { tensor, place });
    }
    Ok((entries, others))
}
