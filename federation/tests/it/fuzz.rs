//! The fuzz targets, which are a workspace of their own: that they still compile against the decoders,
//! and hold for a few inputs.

use std::collections::BTreeSet;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

#[path = "../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library in its own workspace")]
mod targets;

const INPUTS: usize = 200;

type Target = fn(&[u8]);

#[test]
fn every_fuzz_target_compiles_and_holds_for_a_few_inputs() {
    let all: [(&str, Target); 12] = [
        ("bodies", targets::bodies),
        ("bundles", targets::bundles),
        ("certificates", targets::certificates),
        ("datagrams", targets::datagrams),
        ("frames", targets::frames),
        ("heads", targets::heads),
        ("manifests", targets::manifests),
        ("names", targets::names),
        ("resources", targets::resources),
        ("store", targets::store),
        ("tokens", targets::tokens),
        ("watch", targets::watch),
    ];
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/targets");
    let files = std::fs::read_dir(files).unwrap().map(|file| file.unwrap().path());
    let files: BTreeSet<_> =
        files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert!(files.iter().eq(all.iter().map(|(name, _)| name)), "{files:?}");
    let mut random = StdRng::seed_from_u64(1);
    for (_, target) in all {
        target(b"");
        for _ in 0..INPUTS {
            let mut input = vec![0; random.random_range(1..256)];
            random.fill(&mut input[..]);
            target(&input);
        }
    }
}
