//! IP addresses and CIDRs.

use super::{Outcome, Row, fail, mismatch};
use crate::value::{Cidr, Opaque, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const ROWS: &[Row] = &[
    ("ip", "string_to_ip", "(string) -> ip", |a| parsed(a, |s| parse_ip(s).map(ip))),
    ("ip", "cidr_ip", "cidr.() -> ip", |a| of_cidr(a, |cidr| ip(cidr.address))),
    ("family", "ip_family", "ip.() -> int", |a| of_ip(a, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))),
    ("ip.isCanonical", "ip_is_canonical", "(string) -> bool", |a| {
        parsed(a, |s| parse_ip(s).map(|ip| (ip.to_string() == s).into()))
    }),
    ("isUnspecified", "ip_is_unspecified", "ip.() -> bool", |a| of_ip(a, |ip| ip.is_unspecified().into())),
    ("isLoopback", "ip_is_loopback", "ip.() -> bool", |a| of_ip(a, |ip| ip.is_loopback().into())),
    ("isLinkLocalMulticast", "ip_is_link_local_multicast", "ip.() -> bool", |a| {
        of_ip(a, |ip| link_local_multicast(&ip).into())
    }),
    ("isLinkLocalUnicast", "ip_is_link_local_unicast", "ip.() -> bool", |a| {
        of_ip(a, |ip| link_local_unicast(&ip).into())
    }),
    ("isGlobalUnicast", "ip_is_global_unicast", "ip.() -> bool", |a| {
        of_ip(a, |ip| global_unicast(&ip).into())
    }),
    ("isIP", "is_ip", "(string) -> bool", |a| parsed(a, |s| Ok(parse_ip(s).is_ok().into()))),
    ("cidr", "string_to_cidr", "(string) -> cidr", |a| {
        parsed(a, |s| parse_cidr(s).map(cidr).map_err(|e| format!("{CIDR_ERROR}: {e}")))
    }),
    ("isCIDR", "is_cidr", "(string) -> bool", |a| parsed(a, |s| Ok(parse_cidr(s).is_ok().into()))),
    ("containsIP", "cidr_contains_ip_string", "cidr.(string) -> bool", contains_ip),
    ("containsIP", "cidr_contains_ip_ip", "cidr.(ip) -> bool", contains_ip),
    ("containsCIDR", "cidr_contains_cidr_string", "cidr.(string) -> bool", contains_cidr),
    ("containsCIDR", "cidr_contains_cidr", "cidr.(cidr) -> bool", contains_cidr),
    ("prefixLength", "cidr_prefix_length", "cidr.() -> int", |a| {
        of_cidr(a, |cidr| Value::Int(cidr.bits.into()))
    }),
    ("masked", "cidr_masked", "cidr.() -> cidr", |a| {
        of_cidr(a, |c| cidr(Cidr { address: mask(c.address, c.bits), bits: c.bits }))
    }),
];

const CIDR_ERROR: &str = "network address parse error during conversion from string";

fn ip(address: IpAddr) -> Value<'static> {
    Value::Opaque(Opaque::Ip(address))
}

fn cidr(cidr: Cidr) -> Value<'static> {
    Value::Opaque(Opaque::Cidr(cidr))
}

fn parsed<'a>(args: &[Value<'a>], f: fn(&str) -> Result<Value<'static>, String>) -> Outcome<'a> {
    match args {
        [Value::String(text)] => f(text).or_else(fail),
        _ => mismatch(),
    }
}

fn of_ip<'a>(args: &[Value<'a>], f: fn(IpAddr) -> Value<'static>) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Ip(address))] => Ok(f(*address)),
        _ => mismatch(),
    }
}

fn of_cidr<'a>(args: &[Value<'a>], f: fn(Cidr) -> Value<'static>) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Cidr(cidr))] => Ok(f(*cidr)),
        _ => mismatch(),
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if let Some((address, zone)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
        && !zone.is_empty()
    {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        let why = format!("ParseAddr({text:?}): unable to parse IP");
        format!("IP Address {text:?} parse error during conversion from string: {why}")
    })?;
    reject_mapped(address, text)
}

fn reject_mapped(address: IpAddr, text: &str) -> Result<IpAddr, String> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        address => Ok(address),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let invalid = |why: &str| format!("{CIDR_ERROR}: netip.ParsePrefix({text:?}): {why}");
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| invalid("no '/'"))?;
    let address: IpAddr = address.parse().map_err(|_| invalid("unable to parse IP"))?;
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() < 2 || !bits.starts_with('0'));
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| invalid(&format!("bad bits after slash: {bits:?}")))?;
    if bits > if address.is_ipv4() { 32 } else { 128 } {
        return Err(invalid("prefix length out of range"));
    }
    reject_mapped(address, text).map(|address| Cidr { address, bits })
}

fn mask(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

fn contains(outer: Cidr, address: IpAddr) -> bool {
    outer.address.is_ipv4() == address.is_ipv4()
        && mask(outer.address, outer.bits) == mask(address, outer.bits)
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Cidr(outer)), Value::Opaque(Opaque::Ip(address))] => {
            Ok(contains(*outer, *address).into())
        }
        [Value::Opaque(Opaque::Cidr(outer)), Value::String(text)] => match parse_ip(text) {
            Ok(address) => Ok(contains(*outer, address).into()),
            Err(why) => fail(why),
        },
        _ => mismatch(),
    }
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (outer, inner) = match args {
        [Value::Opaque(Opaque::Cidr(outer)), Value::Opaque(Opaque::Cidr(inner))] => (outer, *inner),
        [Value::Opaque(Opaque::Cidr(outer)), Value::String(text)] => match parse_cidr(text) {
            Ok(inner) => (outer, inner),
            Err(why) => return fail(format!("{CIDR_ERROR}: {why}")),
        },
        _ => return mismatch(),
    };
    Ok((outer.bits <= inner.bits && contains(*outer, inner.address)).into())
}

fn link_local_multicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn global_unicast(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(broadcast
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || link_local_unicast(address))
}
