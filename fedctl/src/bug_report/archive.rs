//! A `.tar.gz` of small files: the ustar format of POSIX.1-1988, which every tar reads.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Part;

const BLOCK: usize = 512;

/// Writes the parts as files of one folder. `now_unix_s` is their time.
pub fn pack(folder: &str, parts: &[Part], now_unix_s: u64, to: impl Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(to, Compression::default());
    for part in parts {
        let bytes = part.text.as_bytes();
        gzip.write_all(&header(&format!("{folder}/{}", part.name), bytes.len(), now_unix_s))?;
        gzip.write_all(bytes)?;
        gzip.write_all(&vec![0; bytes.len().next_multiple_of(BLOCK) - bytes.len()])?;
    }
    // Two empty blocks end an archive.
    gzip.write_all(&[0; 2 * BLOCK])?;
    gzip.finish()?.flush()
}

fn header(path: &str, bytes: usize, now_unix_s: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    // Names are ours, and far shorter than the field.
    put(0, &path[..path.floor_char_boundary(99)]);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{bytes:011o}\0"));
    put(136, &format!("{now_unix_s:011o}\0"));
    // The checksum counts its own field as spaces.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_systems_tar_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.tar.gz");
        let part = |name: &str, text: String| Part { name: name.into(), text };
        let parts = [
            part("README.txt", "hello\n".into()),
            part("logs/gateway.log", "x".repeat(1025)),
            part("empty.json", String::new()),
        ];
        let file = std::fs::File::create(&path).unwrap();
        pack("report", &parts, 1_700_000_000, file).unwrap();
        let mut tar = Command::new("tar");
        assert!(tar.arg("-xzf").arg(&path).current_dir(folder.path()).status().unwrap().success());
        for part in parts {
            let read = std::fs::read_to_string(folder.path().join("report").join(&part.name));
            assert_eq!(read.unwrap(), part.text, "{}", part.name);
        }
    }
}
