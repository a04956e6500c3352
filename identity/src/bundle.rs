//! Trust bundles, one per trust domain, side by side and never pooled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use model::code::{self, Code};
use model::{ClusterName, TrustBundle, TrustDomain};
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::limits::{BUNDLE_AUTHORITIES_MAX, TRUST_DOMAINS_MAX};
use crate::profile::{Signing, check_signing};
use crate::verify::VerifyError;

/// The bundles in force. Cloning is cheap: the bundles themselves are shared.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BundleSet {
    bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
    /// The highest sequence ever in force here, also of domains that are gone: who takes a peer
    /// away and puts it back must not get an old bundle past us.
    high_water: BTreeMap<TrustDomain, u64>,
    /// Whose each bundle was in the last [`BundleSet::replace_all`].
    owners: BTreeMap<TrustDomain, ClusterName>,
}

/// What [`BundleSet::insert`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleChange {
    Added,
    Replaced,
    Unchanged,
}

/// Why a bundle was refused; the one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error(
        "the bundle of trust domain {domain:?} has sequence {found}, but {in_force} was already in \
         force: export it again from the cluster that owns the domain"
    )]
    LowerSequence { domain: TrustDomain, found: u64, in_force: u64 },
    #[error(
        "the bundle of trust domain {domain:?} differs from the one in force but has the same \
         sequence {sequence}: export it again from the cluster that owns the domain"
    )]
    SameSequence { domain: TrustDomain, sequence: u64 },
    #[error("authority {index} in the bundle of trust domain {domain:?} cannot be used: {problem}")]
    Authority { domain: TrustDomain, index: usize, problem: VerifyError },
    #[error(
        "the bundle of trust domain {domain:?} has {found} authorities: at most \
         {BUNDLE_AUTHORITIES_MAX} are kept"
    )]
    TooManyAuthorities { domain: TrustDomain, found: usize },
    #[error(
        "trust domain {domain:?} is one more than the {TRUST_DOMAINS_MAX} that are remembered: \
         remove peers and restart"
    )]
    TooManyDomains { domain: TrustDomain },
    #[error("trust domain {domain:?} has two bundles: leave one of them, a domain has one owner")]
    Duplicate { domain: TrustDomain },
}

impl BundleError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::LowerSequence { .. } | Self::SameSequence { .. } => code::BUNDLE_ROLLBACK,
            Self::Duplicate { .. } => code::TRUST_DOMAIN_CONFLICT,
            Self::Authority { .. }
            | Self::TooManyAuthorities { .. }
            | Self::TooManyDomains { .. } => code::OBJECT_INVALID,
        }
    }

    /// The trust domain whose bundle was refused.
    pub fn domain(&self) -> &TrustDomain {
        match self {
            Self::LowerSequence { domain, .. }
            | Self::SameSequence { domain, .. }
            | Self::Authority { domain, .. }
            | Self::TooManyAuthorities { domain, .. }
            | Self::TooManyDomains { domain }
            | Self::Duplicate { domain } => domain,
        }
    }
}

impl BundleSet {
    /// Puts a bundle into force, beside those of other domains.
    ///
    /// A sequence of 0 stands for a publisher that does not number its bundles: there the content
    /// may change at will, until it begins to count.
    pub fn insert(&mut self, bundle: TrustBundle) -> Result<BundleChange, BundleError> {
        let domain = bundle.trust_domain.clone();
        if let Some(&in_force) = self.high_water.get(&domain)
            && bundle.sequence < in_force
        {
            return Err(BundleError::LowerSequence { domain, found: bundle.sequence, in_force });
        }
        let change = match self.bundles.get(&domain).map(|old| &old.published) {
            Some(old) if *old == bundle => return Ok(BundleChange::Unchanged),
            // The refresh hint is advice and may change without a new sequence.
            Some(old)
                if old.sequence == bundle.sequence
                    && bundle.sequence != 0
                    && old.x509_authorities != bundle.x509_authorities =>
            {
                return Err(BundleError::SameSequence { domain, sequence: bundle.sequence });
            }
            Some(_) => BundleChange::Replaced,
            None => BundleChange::Added,
        };
        if !self.high_water.contains_key(&domain) && self.high_water.len() >= TRUST_DOMAINS_MAX {
            return Err(BundleError::TooManyDomains { domain });
        }
        let sequence = bundle.sequence;
        self.bundles.insert(domain.clone(), Arc::new(Bundle::parse(bundle)?));
        self.high_water.insert(domain, sequence);
        Ok(change)
    }

    /// Makes `bundles`, each with the cluster that has it, the ones in force. A domain that is not
    /// among them is gone. One whose new bundle is refused keeps the one it has, unless that was
    /// another cluster's: its gateways would then pass for the new owner's.
    pub fn replace_all(
        &mut self,
        bundles: impl IntoIterator<Item = (ClusterName, TrustBundle)>,
    ) -> Vec<BundleError> {
        let mut owners = BTreeMap::new();
        let mut errors = Vec::new();
        for (owner, bundle) in bundles {
            let domain = bundle.trust_domain.clone();
            if owners.contains_key(&domain) {
                errors.push(BundleError::Duplicate { domain });
                continue;
            }
            if self.owners.get(&domain).is_some_and(|before| *before != owner) {
                self.remove(&domain);
            }
            owners.insert(domain, owner);
            if let Err(error) = self.insert(bundle) {
                errors.push(error);
            }
        }
        self.bundles.retain(|domain, _| owners.contains_key(domain));
        self.owners = owners;
        errors
    }

    /// Takes a domain's bundle out of force; its sequence stays remembered.
    pub fn remove(&mut self, domain: &TrustDomain) {
        self.bundles.remove(domain);
    }

    pub fn get(&self, domain: &TrustDomain) -> Option<&TrustBundle> {
        self.bundles.get(domain).map(|bundle| &bundle.published)
    }

    /// The bundles in force, in the order of their domains' names.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.bundles.values().map(|bundle| &bundle.published)
    }

    /// The authorities of this one domain that are valid now; `None` without a bundle.
    pub(crate) fn anchors(
        &self,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Option<Vec<TrustAnchor<'_>>> {
        // RFC 5280 §6.1.1 leaves a trust anchor's own validity aside; we do not.
        let valid = |signing: &Signing| signing.not_before <= now && now <= signing.not_after;
        let authorities = &self.bundles.get(domain)?.authorities;
        let anchors = authorities.iter().filter(|authority| valid(&authority.signing));
        Some(anchors.map(|authority| authority.anchor.clone()).collect())
    }
}

impl std::fmt::Debug for BundleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bundle: &Arc<Bundle>| {
            let authorities = bundle.authorities.len();
            format!("sequence {}, {authorities} authorities", bundle.published.sequence)
        };
        f.debug_map().entries(self.bundles.iter().map(|(domain, b)| (domain, text(b)))).finish()
    }
}

#[derive(PartialEq, Eq)]
struct Bundle {
    published: TrustBundle,
    authorities: Vec<Authority>,
}

#[derive(PartialEq, Eq)]
struct Authority {
    anchor: TrustAnchor<'static>,
    signing: Signing,
}

impl Bundle {
    fn parse(published: TrustBundle) -> Result<Self, BundleError> {
        let domain = &published.trust_domain;
        let found = published.x509_authorities.len();
        if found > BUNDLE_AUTHORITIES_MAX {
            return Err(BundleError::TooManyAuthorities { domain: domain.clone(), found });
        }
        let parse = |(index, der): (usize, &Vec<u8>)| {
            Authority::parse(index, der).map_err(|problem| BundleError::Authority {
                domain: domain.clone(),
                index,
                problem,
            })
        };
        let authorities =
            published.x509_authorities.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { published, authorities })
    }
}

impl Authority {
    fn parse(index: usize, der: &[u8]) -> Result<Self, VerifyError> {
        let signing = check_signing(index, der)?;
        let anchor = webpki::anchor_from_trusted_cert(&CertificateDer::from(der))
            .map_err(|problem| VerifyError::Malformed { index, reason: problem.to_string() })?
            .to_owned();
        Ok(Self { anchor, signing })
    }
}
