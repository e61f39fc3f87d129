//! Values of Kubernetes' own types.

use crate::authorizer::{Authorizer, Check, Decision, Subject};
use crate::functions::{NamedFormat, Url};
use keelson_api_types::quantity::Quantity;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone)]
pub enum Opaque<'a> {
    Quantity(Quantity),
    Semver(Arc<semver::Version>),
    Url(Arc<Url>),
    Format(&'static NamedFormat),
    Ip(IpAddr),
    Cidr(Cidr),
    Authorizer(&'a dyn Authorizer, Subject),
    PathCheck(&'a dyn Authorizer, Subject, Arc<str>),
    GroupCheck(&'a dyn Authorizer, Subject, Arc<str>),
    ResourceCheck(&'a dyn Authorizer, Arc<Check>),
    Decision(Arc<Decision>),
}

/// An address with a prefix; bits beyond the prefix are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

impl Opaque<'_> {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(_) => "net.CIDR",
            Opaque::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck(..) => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck(..) => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck(..) => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    pub(crate) fn equals(&self, other: &Opaque<'_>) -> bool {
        match (self, other) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            // Build metadata has no order.
            (Opaque::Semver(a), Opaque::Semver(b)) => a.cmp_precedence(b).is_eq(),
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
            _ => false,
        }
    }

    /// For costs: addresses count by their bytes.
    pub(crate) fn size(&self) -> Option<u64> {
        let bytes = |address: &IpAddr| if address.is_ipv4() { 4 } else { 16 };
        match self {
            Opaque::Ip(address) => Some(bytes(address)),
            Opaque::Cidr(cidr) => Some(u64::from(cidr.bits.div_ceil(8))),
            Opaque::Format(_) => None,
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Opaque::Quantity(quantity) => quantity.to_string(),
            Opaque::Semver(version) => version.to_string(),
            Opaque::Url(url) => url.to_string(),
            Opaque::Ip(address) => address.to_string(),
            Opaque::Cidr(cidr) => format!("{}/{}", cidr.address, cidr.bits),
            other => other.type_name().to_owned(),
        }
    }
}

impl fmt::Debug for Opaque<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.type_name(), self.text())
    }
}
