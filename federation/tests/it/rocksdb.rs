//! The linked RocksDB works on this machine, whether prebuilt or bundled: what it calls synced is there again.

use rocksdb::{ColumnFamilyDescriptor, DB, Options, WriteBatch, WriteOptions};
use tempfile::TempDir;

const FAMILIES: [&str; 2] = ["log", "state"];

fn open(folder: &TempDir) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
    DB::open_cf_descriptors(&options, folder.path(), families).unwrap()
}

#[test]
fn a_synced_batch_in_two_families_survives_reopening() {
    let folder = TempDir::new().unwrap();
    let db = open(&folder);
    let mut batch = WriteBatch::default();
    for name in FAMILIES {
        batch.put_cf(db.cf_handle(name).unwrap(), "key", name);
    }
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    db.write_opt(batch, &synced).unwrap();
    drop(db);

    let db = open(&folder);
    for name in FAMILIES {
        let value = db.get_cf(db.cf_handle(name).unwrap(), "key").unwrap();
        assert_eq!(value.as_deref(), Some(name.as_bytes()));
    }
    // A table file is written and read too, so that more than the log is seen to work.
    let log = db.cf_handle("log").unwrap();
    db.flush_cf(log).unwrap();
    assert_eq!(db.get_cf(log, "key").unwrap().as_deref(), Some(b"log".as_slice()));
}
