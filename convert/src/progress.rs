//! How a conversion reports its progress.

/// Receives the progress of a conversion; its methods are called from any thread.
pub trait Progress: Sync {
    /// The notes that are known before the work begins: the first ones of the report.
    fn notes(&self, notes: &[String]) {
        let _ = notes;
    }
    /// The conversion itself begins; it will read `bytes` of source.
    fn start(&self, bytes: u64) {
        let _ = bytes;
    }
    /// `bytes` more of the source are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// Everything is encoded; the files are being synced to disk, and `bytes` of them read back for their
    /// checksums.
    fn sync(&self, bytes: u64) {
        let _ = bytes;
    }
    /// `bytes` more are read back.
    fn summed(&self, bytes: u64) {
        let _ = bytes;
    }
    /// The files are being compared with the source, `bytes` of which are read again.
    fn verify(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// Reports nothing.
impl Progress for () {}
