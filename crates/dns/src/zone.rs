//! The names of a cluster, after the specification of DNS-based service discovery, version 1.1.0.
//!
//! Pure: a question and a directory of what exists in, the records out.

use std::net::{IpAddr, Ipv4Addr};

/// What a question can ask for here; everything else exists without records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
    Ptr,
    Txt,
    Soa,
    Ns,
    Any,
    Other,
}

/// One record; names are relative to nothing, without the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Address(IpAddr),
    Srv { weight: u16, port: u16, target: String },
    Name(String),
    Alias(String),
    Text(String),
    Soa,
    Ns(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The name exists; no records means none of this kind.
    Records(Vec<Record>),
    /// No such name below our domain.
    NoName,
    /// Not ours: ask upstream.
    Elsewhere,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Empty for headless and external-name ones.
    pub addresses: Vec<IpAddr>,
    pub external_name: Option<String>,
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    /// In lower case.
    pub protocol: String,
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub hostname: Option<String>,
    pub ports: Vec<Port>,
}

/// What exists.
pub trait Directory {
    fn has_namespace(&self, namespace: &str) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Service>;
    /// The ready endpoints of a headless Service.
    fn endpoints(&self, namespace: &str, name: &str) -> Vec<Endpoint>;
    /// Namespace and name of the Service with this address.
    fn service_at(&self, address: IpAddr) -> Option<(String, String)>;
    /// Namespace, Service and endpoint for this address.
    fn endpoint_at(&self, address: IpAddr) -> Option<(String, String, Endpoint)>;
}

/// Answers one question. The name is in lower case, without the final dot.
pub fn answer(name: &str, kind: Kind, domain: &str, directory: &dyn Directory) -> Answer {
    if let Some(address) = reverse(name) {
        return pointer(name, address, domain, directory);
    }
    let Some(labels) = below(name, domain) else { return Answer::Elsewhere };
    let labels: Vec<&str> = labels.rsplit('.').filter(|label| !label.is_empty()).collect();
    let zone = Zone { name, kind, domain, directory };
    match labels.as_slice() {
        [] => zone.apex(),
        ["svc" | "pod"] => Answer::Records(Vec::new()),
        ["dns-version"] => zone.only(Kind::Txt, Data::Text("1.1.0".into())),
        ["ns", "dns"] => Answer::Records(Vec::new()),
        ["svc" | "pod", namespace] if directory.has_namespace(namespace) => Answer::Records(Vec::new()),
        ["pod", namespace, address] if directory.has_namespace(namespace) => zone.pod(address),
        ["svc", namespace, service] => zone.service(namespace, service),
        ["svc", namespace, service, host] => zone.host(namespace, service, host),
        ["svc", namespace, service, protocol, port] => zone.port(namespace, service, protocol, port),
        _ => Answer::NoName,
    }
}

/// The part of a name that stands before the domain.
fn below<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let rest = name.strip_suffix(domain)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
}

struct Zone<'a> {
    name: &'a str,
    kind: Kind,
    domain: &'a str,
    directory: &'a dyn Directory,
}

impl Zone<'_> {
    fn record(&self, data: Data) -> Record {
        Record { name: self.name.to_owned(), data }
    }

    fn only(&self, kind: Kind, data: Data) -> Answer {
        let asked = self.kind == kind || self.kind == Kind::Any;
        Answer::Records(if asked { vec![self.record(data)] } else { Vec::new() })
    }

    fn apex(&self) -> Answer {
        match self.kind {
            Kind::Ns => Answer::Records(vec![self.record(Data::Ns(format!("ns.dns.{}", self.domain)))]),
            _ => self.only(Kind::Soa, Data::Soa),
        }
    }

    fn addresses(&self, all: impl IntoIterator<Item = IpAddr>) -> Vec<Record> {
        let wanted = |address: &IpAddr| match self.kind {
            Kind::A => address.is_ipv4(),
            Kind::Aaaa => address.is_ipv6(),
            Kind::Any => true,
            _ => false,
        };
        all.into_iter().filter(wanted).map(|address| self.record(Data::Address(address))).collect()
    }

    /// A pod's name is its address with dashes; it is not looked up.
    fn pod(&self, dashed: &str) -> Answer {
        let v4 = dashed.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
        match v4.or_else(|_| dashed.replace('-', ":").parse()) {
            Ok(address) => Answer::Records(self.addresses([address])),
            Err(_) => Answer::NoName,
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Answer {
        let Some(service) = self.directory.service(namespace, name) else { return Answer::NoName };
        if let Some(target) = service.external_name {
            // An alias stands for records of every kind (RFC 1034, 3.6.2).
            return Answer::Records(vec![self.record(Data::Alias(target))]);
        }
        let headless = service.addresses.is_empty();
        let endpoints = if headless { self.directory.endpoints(namespace, name) } else { Vec::new() };
        if headless && endpoints.is_empty() {
            return Answer::NoName;
        }
        if self.kind == Kind::Srv {
            return self.srv(namespace, name, &service, &endpoints, |_| true);
        }
        if headless {
            let mut records = self.addresses(endpoints.iter().map(|e| e.address));
            records.dedup();
            return Answer::Records(records);
        }
        Answer::Records(self.addresses(service.addresses))
    }

    /// `_port._protocol`
    fn port(&self, namespace: &str, name: &str, protocol: &str, port: &str) -> Answer {
        let (Some(protocol), Some(port)) = (protocol.strip_prefix('_'), port.strip_prefix('_')) else {
            return Answer::NoName;
        };
        let Some(service) = self.directory.service(namespace, name) else { return Answer::NoName };
        let endpoints = match service.addresses.is_empty() {
            true => self.directory.endpoints(namespace, name),
            false => Vec::new(),
        };
        let answer =
            self.srv(namespace, name, &service, &endpoints, |p| p.name == port && p.protocol == protocol);
        match answer {
            Answer::Records(records) if records.is_empty() => Answer::NoName,
            _ if !matches!(self.kind, Kind::Srv | Kind::Any) => Answer::Records(Vec::new()),
            answer => answer,
        }
    }

    fn srv(
        &self,
        namespace: &str,
        name: &str,
        service: &Service,
        endpoints: &[Endpoint],
        wanted: impl Fn(&Port) -> bool,
    ) -> Answer {
        let base = format!("{name}.{namespace}.svc.{}", self.domain);
        let mut targets: Vec<(u16, String)> = Vec::new();
        if service.addresses.is_empty() {
            for endpoint in endpoints {
                let host = host_name(endpoint);
                targets.extend(
                    endpoint.ports.iter().filter(|p| wanted(p)).map(|p| (p.number, format!("{host}.{base}"))),
                );
            }
        } else {
            targets.extend(service.ports.iter().filter(|p| wanted(p)).map(|p| (p.number, base.clone())));
        }
        let weight = 100 / u16::try_from(targets.len().clamp(1, 100)).unwrap_or(100);
        let record = |(port, target)| self.record(Data::Srv { weight, port, target });
        Answer::Records(targets.into_iter().map(record).collect())
    }

    /// One endpoint of a headless Service, by its host name or its address with dashes.
    fn host(&self, namespace: &str, service: &str, host: &str) -> Answer {
        if self.directory.service(namespace, service).is_none_or(|s| !s.addresses.is_empty()) {
            return Answer::NoName;
        }
        let endpoints = self.directory.endpoints(namespace, service);
        let named: Vec<IpAddr> =
            endpoints.iter().filter(|e| host_name(e) == host).map(|e| e.address).collect();
        if named.is_empty() { Answer::NoName } else { Answer::Records(self.addresses(named)) }
    }
}

fn host_name(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.address.to_string().replace(['.', ':'], "-"))
}

fn pointer(name: &str, address: IpAddr, domain: &str, directory: &dyn Directory) -> Answer {
    let target = if let Some((namespace, service)) = directory.service_at(address) {
        format!("{service}.{namespace}.svc.{domain}")
    } else if let Some((namespace, service, endpoint)) = directory.endpoint_at(address) {
        format!("{}.{service}.{namespace}.svc.{domain}", host_name(&endpoint))
    } else {
        return Answer::Elsewhere;
    };
    Answer::Records(vec![Record { name: name.to_owned(), data: Data::Name(target) }])
}

/// The address of a reverse name (`1.0.96.10.in-addr.arpa`, and the nibbles of `ip6.arpa`).
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let forward: Vec<&str> = octets.rsplit('.').collect();
        return forward.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let nibbles: String = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    (nibbles.len() == 32)
        .then(|| u128::from_str_radix(&nibbles, 16).ok())
        .flatten()
        .map(|bits| IpAddr::V6(bits.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `web` at 10.96.0.7, headless `db` with two endpoints, `out` for example.com, all in `shop`.
    struct Shop;

    fn port(name: &str, number: u16) -> Port {
        Port { name: name.into(), protocol: "tcp".into(), number }
    }

    impl Directory for Shop {
        fn has_namespace(&self, namespace: &str) -> bool {
            namespace == "shop"
        }

        fn service(&self, namespace: &str, name: &str) -> Option<Service> {
            let ports = vec![port("http", 80)];
            match (namespace, name) {
                ("shop", "web") => {
                    Some(Service { addresses: vec!["10.96.0.7".parse().ok()?], ports, external_name: None })
                }
                ("shop", "db") => Some(Service { ports, ..Service::default() }),
                ("shop", "out") => {
                    Some(Service { external_name: Some("example.com".into()), ..Service::default() })
                }
                _ => None,
            }
        }

        fn endpoints(&self, _: &str, name: &str) -> Vec<Endpoint> {
            let endpoint = |address: &str, hostname: Option<&str>| Endpoint {
                address: address.parse().unwrap(),
                hostname: hostname.map(str::to_owned),
                ports: vec![port("http", 8080)],
            };
            if name == "db" {
                vec![endpoint("10.244.0.1", Some("db-0")), endpoint("10.244.0.2", None)]
            } else {
                vec![]
            }
        }

        fn service_at(&self, address: IpAddr) -> Option<(String, String)> {
            (address.to_string() == "10.96.0.7").then(|| ("shop".into(), "web".into()))
        }

        fn endpoint_at(&self, address: IpAddr) -> Option<(String, String, Endpoint)> {
            let endpoint = self.endpoints("shop", "db").into_iter().find(|e| e.address == address)?;
            Some(("shop".into(), "db".into(), endpoint))
        }
    }

    fn ask(name: &str, kind: Kind) -> String {
        match answer(name, kind, "cluster.local", &Shop) {
            Answer::NoName => "no name".into(),
            Answer::Elsewhere => "elsewhere".into(),
            Answer::Records(records) => {
                let text = |record: Record| match record.data {
                    Data::Address(address) => address.to_string(),
                    Data::Srv { weight, port, target } => format!("{weight} {port} {target}"),
                    Data::Name(name) | Data::Alias(name) | Data::Ns(name) | Data::Text(name) => name,
                    Data::Soa => "soa".into(),
                };
                records.into_iter().map(text).collect::<Vec<_>>().join(", ")
            }
        }
    }

    #[test]
    fn names_follow_the_specification() {
        for (name, kind, want) in [
            ("web.shop.svc.cluster.local", Kind::A, "10.96.0.7"),
            ("web.shop.svc.cluster.local", Kind::Aaaa, ""),
            ("db.shop.svc.cluster.local", Kind::A, "10.244.0.1, 10.244.0.2"),
            ("db-0.db.shop.svc.cluster.local", Kind::A, "10.244.0.1"),
            ("10-244-0-2.db.shop.svc.cluster.local", Kind::A, "10.244.0.2"),
            ("out.shop.svc.cluster.local", Kind::A, "example.com"),
            ("out.shop.svc.cluster.local", Kind::Other, "example.com"),
            ("_http._tcp.web.shop.svc.cluster.local", Kind::Srv, "100 80 web.shop.svc.cluster.local"),
            (
                "_http._tcp.db.shop.svc.cluster.local",
                Kind::Srv,
                "50 8080 db-0.db.shop.svc.cluster.local, 50 8080 10-244-0-2.db.shop.svc.cluster.local",
            ),
            ("10-244-0-9.shop.pod.cluster.local", Kind::A, "10.244.0.9"),
            ("7.0.96.10.in-addr.arpa", Kind::Ptr, "web.shop.svc.cluster.local"),
            ("1.0.244.10.in-addr.arpa", Kind::Ptr, "db-0.db.shop.svc.cluster.local"),
            ("dns-version.cluster.local", Kind::Txt, "1.1.0"),
            ("cluster.local", Kind::Soa, "soa"),
            ("shop.svc.cluster.local", Kind::A, ""),
            ("none.shop.svc.cluster.local", Kind::A, "no name"),
            ("web.other.svc.cluster.local", Kind::A, "no name"),
            ("_none._tcp.web.shop.svc.cluster.local", Kind::Srv, "no name"),
            ("x.web.shop.svc.cluster.local", Kind::A, "no name"),
            ("not-an-address.shop.pod.cluster.local", Kind::A, "no name"),
            ("example.com", Kind::A, "elsewhere"),
            ("notcluster.local", Kind::A, "elsewhere"),
            ("1.2.0.192.in-addr.arpa", Kind::Ptr, "elsewhere"),
        ] {
            assert_eq!(ask(name, kind), want, "{name} {kind:?}");
        }
    }
}
