//! Golden files in `testdata/mcs`: `name.in.yaml` says what is known, `name.out.yaml` is what is
//! written because of it, and what gateways are told; `UPDATE=1` rewrites.
//!
//! With `rounds` the outcome of each round is put into the cluster before the next one.

mod input;
mod yaml;

use std::collections::BTreeMap;

use super::derived::{Listening, resources};
use super::world::{Memory, recorded};
use crate::kubernetes::apply::{Plan, Step, plan};
use crate::kubernetes::golden;
use crate::kubernetes::kinds::SERVICE;
use input::Input;

#[test]
fn what_is_written_is_as_recorded() {
    golden::check("mcs", |name, text| render(Input::parse(name, text)));
}

fn render(mut input: Input) -> String {
    let (mut memory, mut listening) = (Memory::default(), Listening::default());
    let mut out = String::new();
    for round in 1..=input.rounds.unwrap_or(1) {
        let (world, own) = (input.world(), input.own());
        let desired = world.desired(&own, &mut memory, input.now);
        let Plan { steps, .. } = plan("mcs", desired, &own, &BTreeMap::new());
        out += &format!("# Round {round}\n");
        if steps.is_empty() {
            out += "# nothing to write\n";
        }
        for step in &steps {
            match step {
                Step::Apply { document, .. } => out += &format!("---\n{}", yaml::text(document)),
                Step::Delete { target, .. } => out += &format!("---\n# deleted: {target}\n"),
            }
        }
        steps.into_iter().for_each(|step| input.carry_out(step));
        input.now += input.pause;
    }
    let own = input.own();
    let recorded = listening.settle(recorded(own.of(&SERVICE)), input.pool());
    let resources = resources(&input.imports(), recorded);
    if !resources.is_empty() {
        out += "# Gateways are told\n";
    }
    for resource in &resources {
        out += &format!("---\n{}", api::manifest_of(resource).unwrap().to_yaml());
    }
    out
}
