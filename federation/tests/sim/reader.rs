//! A Replica's side of the watch: it follows one node, now and then another, and verifies all that it
//! is told.

use std::collections::BTreeMap;

use federation::fleet::{Fleet, VerifiedView, View, ViewStep, serving};
use model::{ClusterId, FederationId};
use wire::store::{Mark, WatchEvent};

use super::plant::{self, Plant};

#[derive(Debug)]
pub(crate) struct Reader {
    own: ClusterId,
    held: VerifiedView,
    /// Whom it follows, and what that one showed last.
    source: Option<(u64, View)>,
    marks: BTreeMap<ClusterId, Mark>,
}

impl Reader {
    pub(crate) fn new(own: ClusterId, federation: FederationId) -> Self {
        let held = VerifiedView::new(own, federation);
        Self { own, held, source: None, marks: BTreeMap::new() }
    }

    /// A node has this state now. `elsewhere` makes the reader change to it.
    pub(crate) fn follow(
        &mut self,
        node: u64,
        fleet: &Fleet,
        elsewhere: bool,
    ) -> Result<(), String> {
        if fleet.federation().is_none() {
            return Ok(());
        }
        let serving = serving(fleet);
        let before = match self.source.take() {
            Some((source, before)) if source != node && !elsewhere => {
                self.source = Some((source, before));
                return Ok(());
            }
            // A node that was restarted may be behind what it showed: the reader begins anew.
            Some((source, before)) if source == node && fleet.revision() >= before.revision() => {
                Some(before)
            }
            _ => None,
        };
        let (view, step) = match &before {
            Some(before) => {
                let view = before.at(fleet, &serving);
                let step = view.step_from(before, self.held.fleet().revision());
                (view, step)
            }
            None => (View::of(fleet, &serving, &self.own), ViewStep::Snapshot),
        };
        let behind = fleet.revision() < self.held.fleet().revision();
        let taken = match step {
            ViewStep::Nothing => Ok(()),
            ViewStep::Delta(_) if self.forgotten(fleet) => Ok(()),
            ViewStep::Delta(event) => self.take(&[event]),
            ViewStep::Snapshot => self.take(&view.snapshot()),
        };
        match taken {
            Ok(()) if self.forgotten(fleet) => {}
            Ok(()) => self.compare(&view)?,
            // What is older than it holds it may refuse.
            Err(_) if behind => return self.check_marks(),
            Err(text) => return Err(format!("a reader refused what node {node} told: {text}")),
        }
        self.source = Some((node, view));
        self.check_marks()
    }

    /// Whether a planted bug keeps this change from the reader.
    fn forgotten(&self, fleet: &Fleet) -> bool {
        plant::is_everywhere(Plant::WatchGap) && fleet.revision().index.is_multiple_of(5)
    }

    fn take(&mut self, events: &[WatchEvent]) -> Result<(), String> {
        for event in events {
            self.held.apply(event).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The reader sees what it was shown, and nothing else.
    fn compare(&self, view: &View) -> Result<(), String> {
        let seen = |fleet: &Fleet| -> Vec<_> {
            let of = fleet.owners().map(|owner| {
                let keys = owner.records().map(|record| (record.key().clone(), *record.leaf()));
                (owner.head().cluster, owner.head().mark, keys.collect::<Vec<_>>())
            });
            of.collect()
        };
        match seen(self.held.fleet()) == seen(view.fleet()) {
            true => Ok(()),
            false => Err("a reader sees something else than it was shown".to_owned()),
        }
    }

    /// No owner goes back, whomever the reader asks.
    fn check_marks(&mut self) -> Result<(), String> {
        for owner in self.held.fleet().owners() {
            let head = owner.head();
            let last = self.marks.entry(head.cluster).or_insert(head.mark);
            if head.mark < *last {
                return Err(format!("a reader took {:?} after {last:?}", head.mark));
            }
            *last = head.mark;
        }
        Ok(())
    }
}
