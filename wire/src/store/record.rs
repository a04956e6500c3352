//! Records: one object of an owner's, with a salt.

use model::Resource;
use prost::Message as _;

use super::convert::{copied, fixed, message};
use super::key::StoreKey;
use super::limits::RECORD_BYTES_MAX;
use super::proto;
use crate::error::{At, WireError};
use crate::resource::{decode_resource, encode_resource};

/// What the bytes of a record say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub salt: [u8; 16],
    /// `None` when its kind or schema is newer than this build: the bytes are kept, and nothing of
    /// it is served.
    pub resource: Option<Resource>,
}

impl Record {
    /// Reads the record of `key`; an object that calls itself otherwise is refused.
    ///
    /// `apply` does not need this: a record counts there as bytes, so that nodes of different
    /// versions agree.
    pub fn decode(key: &StoreKey, bytes: &[u8]) -> Result<Self, WireError> {
        let at = At::message("StoreRecord");
        let record: proto::StoreRecord = message(&at, bytes, RECORD_BYTES_MAX)?;
        let salt = fixed(at.field("salt"), &record.salt)?;
        let at = at.field("resource");
        let object = record.resource.ok_or_else(|| at.missing("a record holds an object"))?;
        let resource = decode_resource(object).map_err(|error| WireError {
            field: error.field.replacen("Resource", "StoreRecord.resource", 1),
            ..error
        })?;
        if let Some(resource) = &resource
            && Some(resource.key()) != key.resource_key()
        {
            let problem = format!("the record's key is {key}; the two must agree");
            return Err(at.field("key").refuse(format_args!("{}", resource.key()), problem));
        }
        Ok(Self { salt, resource })
    }

    /// The bytes of a new record. An unchanged object keeps its salt, and so its bytes.
    pub fn encode(salt: [u8; 16], resource: &Resource) -> Vec<u8> {
        let resource = Some(encode_resource(resource));
        proto::StoreRecord { salt: copied(&salt), resource }.encode_to_vec()
    }
}
