//! The generated pages are current. `make docs` runs these tests with `UPDATE=1`, which writes them.

use xtask::reference;
use xtask::repo::Repo;

#[test]
fn codes_and_limits_are_current() {
    let repo = Repo::here().unwrap();
    for page in reference::pages(&repo).unwrap() {
        page.settle(&repo.root).unwrap();
    }
}
