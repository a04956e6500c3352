//! Types and reasons of status conditions, each with the exact word of its standard.

/// An enum of words of which each has one spelling.
macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$of_word:meta])* $variant:ident),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$of_word])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as it stands in a status.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

words! {
    /// `status` of a condition.
    ConditionStatus { True, False, Unknown }

    /// `ServiceExport.status.conditions[].type` (MCS v1beta1).
    ExportCondition { Valid, Ready, Conflict }

    /// Reasons of [`ExportCondition`]s.
    ExportReason {
        /// Valid is True.
        Valid,
        /// Valid is False: there is no Service of that name.
        NoService,
        /// Valid is False: an ExternalName Service cannot be exported.
        InvalidServiceType,
        /// Valid is False: the export or its Service has a value that is wrong. Not a word of KEP-1645,
        /// which lets controllers have others.
        Invalid,
        /// Ready is True: the federation has it.
        Exported,
        /// Ready is True, where importers pull.
        Ready,
        /// Ready is False or Unknown: not there yet.
        Pending,
        /// Ready is False: the message says why.
        Failed,
        /// Conflict is False.
        NoConflicts,
        PortConflict,
        TypeConflict,
        SessionAffinityConflict,
        SessionAffinityConfigConflict,
        LabelsConflict,
        AnnotationsConflict,
        InternalTrafficPolicyConflict,
        TrafficDistributionConflict,
        IPFamilyConflict,
        /// Conflict is True: the namespace is granted to other clusters. Not a word of KEP-1645.
        NotGranted,
        /// Conflict is True: another cluster exported the name first. Not a word of KEP-1645.
        ExportedElsewhere,
    }

    /// `ServiceImport.status.conditions[].type` (MCS v1beta1).
    ImportCondition { Ready }

    /// Reasons of [`ImportCondition`]s.
    ImportReason {
        Ready,
        Pending,
        IPFamilyNotSupported,
        /// Ready is False: another object has the name of the derived Service. Not a word of KEP-1645.
        ServiceNameTaken,
        /// Ready is False: the gateways have no port left for it. Not a word of KEP-1645.
        PortsExhausted,
    }

    /// `GatewayClass.status.conditions[].type` (Gateway API).
    GatewayClassCondition { Accepted, SupportedVersion }

    /// Reasons of [`GatewayClassCondition`]s.
    GatewayClassReason {
        Accepted,
        InvalidParameters,
        Pending,
        Unsupported,
        SupportedVersion,
        UnsupportedVersion,
    }

    /// `Gateway.status.conditions[].type` (Gateway API).
    GatewayCondition { Accepted, Programmed, ResolvedRefs }

    /// Reasons of [`GatewayCondition`]s.
    GatewayReason {
        Accepted,
        ListenersNotValid,
        Pending,
        UnsupportedAddress,
        InvalidParameters,
        Programmed,
        Invalid,
        NoResources,
        AddressNotAssigned,
        AddressNotUsable,
        ResolvedRefs,
        RefNotPermitted,
        ListenersNotResolved,
    }

    /// `Gateway.status.listeners[].conditions[].type` (Gateway API).
    ListenerCondition { Accepted, Conflicted, ResolvedRefs, Programmed }

    /// Reasons of [`ListenerCondition`]s.
    ListenerReason {
        Accepted,
        PortUnavailable,
        UnsupportedProtocol,
        UnsupportedValue,
        HostnameConflict,
        ProtocolConflict,
        NoConflicts,
        ResolvedRefs,
        InvalidCertificateRef,
        InvalidRouteKinds,
        RefNotPermitted,
        Programmed,
        Invalid,
        Pending,
    }

    /// `status.parents[].conditions[].type` of a route (Gateway API).
    RouteCondition {
        Accepted,
        ResolvedRefs,
        /// Only ever True; its message begins with "Dropped Rule".
        PartiallyInvalid,
    }

    /// Reasons of [`RouteCondition`]s.
    RouteReason {
        Accepted,
        NotAllowedByListeners,
        NoMatchingListenerHostname,
        NoMatchingParent,
        UnsupportedValue,
        Pending,
        IncompatibleFilters,
        ResolvedRefs,
        RefNotPermitted,
        InvalidKind,
        BackendNotFound,
        UnsupportedProtocol,
    }

    /// `status.ancestors[].conditions[].type` of a policy (GEP-713).
    PolicyCondition { Accepted, Programmed }

    /// Reasons of [`PolicyCondition`]s.
    PolicyReason {
        Accepted,
        Conflicted,
        Invalid,
        TargetNotFound,
        Programmed,
        PartiallyProgrammed,
        /// Programmed is False: gateways do not have it yet.
        Pending,
    }

    /// `status.conditions[].type` of Federation, ClusterPeer, JoinGrant and NamespaceGrant.
    OwnCondition {
        /// Whether the object is right in itself and taken in.
        Accepted,
        /// Whether what it asks for is there: the federation is founded, the peer is connected, the
        /// token is in its Secret, the grant is in force.
        Ready,
    }

    /// Reasons of [`OwnCondition`]s.
    OwnReason {
        /// Accepted is True.
        Accepted,
        /// Accepted is False: a field is wrong or not served; the message has the finding.
        Invalid,
        /// Accepted is False: another object or the federation already says otherwise.
        Conflicted,
        /// Ready is True.
        Ready,
        /// Ready is False or Unknown: not there yet.
        Pending,
        /// Ready is False: it was tried, the message says what went wrong.
        Failed,
        /// Ready is False: this cluster has not the role that it takes.
        NotPermitted,
        /// Ready is False: no gateway has a connection to the peer.
        NotConnected,
        /// Ready is False: the token was used.
        Redeemed,
        /// Ready is False: the token was not used in time.
        Expired,
        /// Ready is False: the token was withdrawn.
        Revoked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `metav1.Condition.reason`: CamelCase, at least one character.
    #[test]
    fn words_are_spelt_as_in_their_standards() {
        assert_eq!(ExportReason::IPFamilyConflict.as_str(), "IPFamilyConflict");
        assert_eq!(ImportReason::IPFamilyNotSupported.as_str(), "IPFamilyNotSupported");
        assert_eq!(RouteReason::NoMatchingListenerHostname.as_str(), "NoMatchingListenerHostname");
        assert_eq!(PolicyReason::PartiallyProgrammed.to_string(), "PartiallyProgrammed");
        for word in ExportReason::ALL.iter().map(|word| word.as_str()) {
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
    }
}
