//! The text of a token: what one person hands to another.
//!
//! `fedgate1.` and base64url (RFC 4648 §5, no padding) of: length of the message (2 bytes, big
//! endian), the message `JoinToken`, and the first 4 bytes of SHA-256 over `fedgate/token-text/v1`,
//! a zero byte, length and message.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{ClusterId, ClusterName, FederationId, PeerAddress, RoleSet, SpiffeId};
use prost::Message as _;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::convert::{self, cluster, copied, federation, fixed, message, positive};
use super::join_proto as proto;
use super::limits;
use super::member::depth;
use super::merkle::Hash;
use super::token::{TokenId, TokenSecret};
use crate::error::{At, WireError};
use crate::resource::convert::{list, parse};
use crate::resource::{decode_peer_address, encode_peer_address};

/// What the text of a token begins with.
pub const TOKEN_PREFIX: &str = "fedgate1.";
const CHECKSUM_DOMAIN: &[u8] = b"fedgate/token-text/v1\0";
const CHECKSUM_BYTES: usize = 4;
const LENGTH_BYTES: usize = 2;

/// All that a cluster needs in order to join: where to knock, who must answer, what to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub token_id: TokenId,
    pub federation: FederationId,
    pub issuer: ClusterId,
    pub issuer_name: ClusterName,
    /// SHA-256 of the issuer's CA certificate, DER.
    pub ca_pin: Hash,
    /// The federation SVID that the issuer's node shows.
    pub spiffe_id: SpiffeId,
    /// Never empty.
    pub addresses: Vec<PeerAddress>,
    pub name: ClusterName,
    pub roles: RoleSet,
    pub delegation_depth: u32,
    pub secret: TokenSecret,
    pub expires_at_unix_ms: u64,
    pub approval_needed: bool,
}

/// Why a text is not a token, and what to do. Never repeats the text: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenTextError {
    #[error(
        "this is not a token: it does not begin with \"{TOKEN_PREFIX}\"; copy the whole line that \
         `fedctl token issue` printed"
    )]
    NotAToken,
    #[error(
        "the token begins with \"fedgate{version}.\", and this fedctl reads \"{TOKEN_PREFIX}\" only; \
         use a fedctl of the version that issued it"
    )]
    OtherVersion { version: String },
    #[error(
        "character {position} of the token, {character:?}, cannot be part of one (letters, digits, \
         '-' and '_' can); copy it again"
    )]
    Character { position: usize, character: char },
    #[error(
        "the token is cut off: {} missing at its end; copy the whole line, also where it is wrapped",
        .missing.map_or("nearly all is".to_owned(), |missing| characters(missing, "is", "are"))
    )]
    Truncated {
        /// `None` when not even the length is there.
        missing: Option<usize>,
    },
    #[error(
        "{} behind the token that {} not of it; copy the token alone",
        characters(*extra, "stands", "stand"), if *extra == 1 { "is" } else { "are" }
    )]
    TooLong { extra: usize },
    #[error(
        "the token was altered: its checksum does not fit; copy it again from where it was issued"
    )]
    Damaged,
    #[error("{0}; issue the token again")]
    Content(WireError),
}

fn characters(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 character {one}") } else { format!("{count} characters {many}") }
}

impl JoinToken {
    /// Reads a token; white space anywhere in it is passed over, since terminals wrap lines.
    pub fn parse(text: &str) -> Result<Self, TokenTextError> {
        let text = Zeroizing::new(text.split_whitespace().collect::<String>());
        let body = text.strip_prefix(TOKEN_PREFIX).ok_or_else(|| not_ours(&text))?;
        check_characters(body)?;
        let bytes = decode_base64(body)?;
        let (content, checksum) = split(&bytes, body.len())?;
        if Self::checksum(content) != *checksum {
            return Err(TokenTextError::Damaged);
        }
        Self::decode(&content[LENGTH_BYTES..]).map_err(TokenTextError::Content)
    }

    /// The text of the token. Zeroized by its owner, since it holds the secret.
    pub fn to_text(&self) -> Result<Zeroizing<String>, TokenTextError> {
        let message = Zeroizing::new(self.encode());
        let length = u16::try_from(message.len()).ok();
        let length = length.filter(|length| usize::from(*length) <= MESSAGE_BYTES_MAX);
        let Some(length) = length else {
            let at = At::message("JoinToken");
            let problem = format!("at most {MESSAGE_BYTES_MAX} bytes fit into a token");
            let refused = at.refuse(format_args!("{} bytes", message.len()), problem);
            return Err(TokenTextError::Content(refused));
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(message.len() + 8));
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&message);
        let checksum = Self::checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
        text.push_str(TOKEN_PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        Ok(text)
    }

    fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let hash = Sha256::new().chain_update(CHECKSUM_DOMAIN).chain_update(content).finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let at = At::message("JoinToken");
        let sent: proto::JoinToken = message(&at, bytes, MESSAGE_BYTES_MAX)?;
        let max = limits::TOKEN_ADDRESSES_MAX;
        let addresses = list(&at, "addresses", sent.addresses, max, decode_peer_address)?;
        if addresses.is_empty() {
            return Err(at.field("addresses").missing("a token says where to knock"));
        }
        let secret = Zeroizing::new(fixed::<32>(at.field("secret"), &sent.secret)?);
        let expires = at.field("expires_at_unix_ms");
        Ok(Self {
            token_id: TokenId::from_bytes(fixed(at.field("token_id"), &sent.token_id)?),
            federation: federation(at.field("federation"), &sent.federation)?,
            issuer: cluster(at.field("issuer"), &sent.issuer)?,
            issuer_name: parse(at.field("issuer_name"), &sent.issuer_name, ClusterName::parse)?,
            ca_pin: fixed(at.field("ca_pin"), &sent.ca_pin)?,
            spiffe_id: parse(at.field("spiffe_id"), &sent.spiffe_id, SpiffeId::parse)?,
            addresses,
            name: parse(at.field("name"), &sent.name, ClusterName::parse)?,
            roles: convert::roles(&at, &sent.roles)?,
            delegation_depth: depth(at.field("delegation_depth"), sent.delegation_depth)?,
            secret: TokenSecret::from_bytes(*secret),
            expires_at_unix_ms: positive(expires, sent.expires_at_unix_ms)?,
            approval_needed: sent.approval_needed,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let token = proto::JoinToken {
            token_id: copied(self.token_id.as_bytes()),
            federation: copied(self.federation.as_bytes()),
            issuer: copied(self.issuer.as_bytes()),
            issuer_name: self.issuer_name.to_string(),
            ca_pin: copied(&self.ca_pin),
            spiffe_id: self.spiffe_id.to_string(),
            addresses: self.addresses.iter().map(encode_peer_address).collect(),
            name: self.name.to_string(),
            roles: convert::encode_roles(self.roles),
            delegation_depth: self.delegation_depth,
            secret: copied(self.secret.expose()),
            expires_at_unix_ms: self.expires_at_unix_ms,
            approval_needed: self.approval_needed,
        };
        token.encode_to_vec()
    }
}

/// What fits into the longest text: three bytes are four characters.
const MESSAGE_BYTES_MAX: usize =
    (limits::TOKEN_TEXT_BYTES_MAX - TOKEN_PREFIX.len()) / 4 * 3 - LENGTH_BYTES - CHECKSUM_BYTES;

fn not_ours(text: &str) -> TokenTextError {
    let version = text.strip_prefix("fedgate").and_then(|rest| rest.split_once('.'));
    match version {
        Some((version, _)) if is_version(version) => {
            TokenTextError::OtherVersion { version: version.to_owned() }
        }
        _ => TokenTextError::NotAToken,
    }
}

fn is_version(text: &str) -> bool {
    (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn check_characters(body: &str) -> Result<(), TokenTextError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match body.chars().enumerate().find(|(_, c)| !fine(*c)) {
        Some((index, character)) => {
            let position = TOKEN_PREFIX.len() + index + 1;
            Err(TokenTextError::Character { position, character })
        }
        None => Ok(()),
    }
}

/// All whole bytes of the text; what is left over at its end is judged by its length.
fn decode_base64(body: &str) -> Result<Zeroizing<Vec<u8>>, TokenTextError> {
    if body.len() > limits::TOKEN_TEXT_BYTES_MAX - TOKEN_PREFIX.len() {
        let extra = body.len() + TOKEN_PREFIX.len() - limits::TOKEN_TEXT_BYTES_MAX;
        return Err(TokenTextError::TooLong { extra });
    }
    if body.len() % 4 == 1 {
        // No text has such a length, so a character is missing or too many: the length inside tells.
        let mut bytes = Zeroizing::new(Vec::new());
        let whole = &body[..body.len() - 1];
        URL_SAFE_NO_PAD.decode_vec(whole, &mut bytes).map_err(|_| TokenTextError::Damaged)?;
        let expected = text_length(&bytes)?;
        return match expected.checked_sub(body.len()) {
            Some(missing) => Err(TokenTextError::Truncated { missing: Some(missing) }),
            None => Err(TokenTextError::TooLong { extra: body.len() - expected }),
        };
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(body.len()));
    match URL_SAFE_NO_PAD.decode_vec(body, &mut bytes) {
        Ok(()) => Ok(bytes),
        // The last character has bits that belong to nothing: it is not the true end.
        Err(_) => {
            bytes.clear();
            let whole = &body[..body.len() / 4 * 4];
            URL_SAFE_NO_PAD.decode_vec(whole, &mut bytes).map_err(|_| TokenTextError::Damaged)?;
            match text_length(&bytes)?.checked_sub(body.len()) {
                missing @ Some(1..) => Err(TokenTextError::Truncated { missing }),
                _ => Err(TokenTextError::Damaged),
            }
        }
    }
}

/// How many characters follow the prefix of a token that begins with these bytes.
fn text_length(bytes: &[u8]) -> Result<usize, TokenTextError> {
    let Some((length, _)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(TokenTextError::Truncated { missing: None });
    };
    let bytes = LENGTH_BYTES + usize::from(u16::from_be_bytes(*length)) + CHECKSUM_BYTES;
    Ok(bytes / 3 * 4 + [0, 2, 3][bytes % 3])
}

/// Length and message, and the checksum after them.
fn split(
    bytes: &[u8],
    characters: usize,
) -> Result<(&[u8], &[u8; CHECKSUM_BYTES]), TokenTextError> {
    let expected = text_length(bytes)?;
    if characters < expected {
        return Err(TokenTextError::Truncated { missing: Some(expected - characters) });
    }
    if characters > expected {
        return Err(TokenTextError::TooLong { extra: characters - expected });
    }
    bytes.split_last_chunk().ok_or(TokenTextError::Damaged)
}

impl fmt::Display for JoinToken {
    /// What may be shown: never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} of {} for cluster {}", self.token_id, self.issuer_name, self.name)
    }
}
