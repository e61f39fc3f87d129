//! Queries over UDP and TCP: ours are answered from memory, the rest is passed on as it came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record as WireRecord, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::zone::{self, Answer, Data, Directory, Kind, Record};

/// Longest answer over UDP for a client that does not say more, and for one that does.
const UDP_PLAIN: u16 = 512;
const UDP_MOST: u16 = 1232;
/// How long an upstream server may take before the next one is asked.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(2);
/// A TCP client that sends nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(10);
/// Queries passed on at once; more would only wait at the upstream server.
const FORWARDED_AT_ONCE: usize = 1000;

pub struct Resolver<D> {
    pub domain: String,
    pub ttl: u32,
    pub upstreams: Vec<SocketAddr>,
    pub directory: D,
    pub metrics: Metrics,
    forwarding: Semaphore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// What memory makes of a query.
enum Own {
    Answer(Vec<u8>),
    Alias(Box<Alias>),
    /// Not ours: ask upstream.
    Elsewhere,
}

/// An answer that ends with an alias. Clients ask no second question, so what it stands for is to follow.
struct Alias {
    response: Message,
    /// The most bytes that the client takes.
    limit: u16,
    question: Query,
}

impl<D: Directory + Send + Sync + 'static> Resolver<D> {
    pub fn new(
        domain: String,
        ttl: u32,
        upstreams: Vec<SocketAddr>,
        directory: D,
        metrics: Metrics,
    ) -> Arc<Self> {
        let forwarding = Semaphore::new(FORWARDED_AT_ONCE);
        Arc::new(Self { domain, ttl, upstreams, directory, metrics, forwarding })
    }

    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An answer that could not be delivered is reported here; it says nothing about the next query.
                Err(error) => {
                    tracing::debug!("receive: {error}");
                    continue;
                }
            };
            let query = &buffer[..length];
            // What memory can answer is answered at once, without a task of its own.
            match self.answer_own(query, Transport::Udp) {
                Own::Answer(answer) => drop(socket.try_send_to(&answer, client)),
                own => {
                    let (resolver, socket, query) = (Arc::clone(&self), Arc::clone(&socket), query.to_vec());
                    tokio::spawn(async move {
                        let answer = resolver.complete(own, &query, Transport::Udp).await;
                        let _ = socket.send_to(&answer, client).await;
                    });
                }
            }
        }
    }

    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let resolver = Arc::clone(&self);
                    tokio::spawn(async move { resolver.converse(stream).await });
                }
                Err(error) => {
                    tracing::warn!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn converse(&self, mut stream: TcpStream) {
        while let Ok(Ok(query)) = tokio::time::timeout(IDLE, read_framed(&mut stream)).await {
            let answer = self.complete(self.answer_own(&query, Transport::Tcp), &query, Transport::Tcp).await;
            if write_framed(&mut stream, &answer).await.is_err() {
                return;
            }
        }
    }

    /// Asks others for what memory does not have.
    async fn complete(&self, own: Own, query: &[u8], transport: Transport) -> Vec<u8> {
        let Alias { mut response, limit, question } = match own {
            Own::Answer(answer) => return answer,
            Own::Elsewhere => return self.forward(query, transport).await,
            Own::Alias(alias) => *alias,
        };
        let mut follow = Message::query();
        follow.metadata.recursion_desired = true;
        follow.add_query(question);
        let answers = match follow.to_vec() {
            Ok(follow) => match self.answer_own(&follow, transport) {
                Own::Answer(answer) => Message::from_vec(&answer).map(|m| m.answers),
                // One alias of ours may lead to another, but not on and on.
                Own::Alias(next) => Ok(next.response.answers),
                Own::Elsewhere => {
                    Message::from_vec(&self.forward(&follow, transport).await).map(|m| m.answers)
                }
            },
            Err(_) => Ok(Vec::new()),
        };
        response.add_answers(answers.unwrap_or_default());
        encode(&response, limit).unwrap_or_else(|| failure(query, ResponseCode::ServFail))
    }

    /// The answer to a question about our domain, or to one that is malformed.
    fn answer_own(&self, query: &[u8], transport: Transport) -> Own {
        let message = match Message::from_vec(query) {
            Ok(message) if message.metadata.message_type == MessageType::Query => message,
            // Never answer an answer, nor what has not even an id.
            Ok(_) => return Own::Answer(Vec::new()),
            Err(_) if query.len() < 12 => return Own::Answer(Vec::new()),
            Err(_) => return Own::Answer(failure(query, ResponseCode::FormErr)),
        };
        let [question] = message.queries.as_slice() else {
            return Own::Answer(failure(query, ResponseCode::FormErr));
        };
        if message.metadata.op_code != OpCode::Query {
            return Own::Answer(failure(query, ResponseCode::NotImp));
        }
        let name = question.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let answer = zone::answer(&name, kind(question.query_type()), &self.domain, &self.directory);
        if answer == Answer::Elsewhere {
            return Own::Elsewhere;
        }
        self.metrics.answered("cluster");
        let mut response = Message::response(message.metadata.id, OpCode::Query);
        response.metadata.authoritative = true;
        response.metadata.recursion_desired = message.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.add_query(question.clone());
        if let Answer::Records(records) = &answer {
            for record in records {
                // The client's own spelling of the name comes back, as some of them check.
                let owner = if record.name == name { Some(question.name().clone()) } else { None };
                response.add_answers(self.wire(record, owner));
            }
        }
        if response.answers.is_empty() {
            if answer == Answer::NoName {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            let soa = Record { name: self.domain.clone(), data: Data::Soa };
            response.add_authorities(self.wire(&soa, None));
        }
        let limit = match (transport, &message.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => UDP_PLAIN,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_PLAIN, UDP_MOST),
        };
        if message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_MOST);
            response.set_edns(edns);
        }
        if let Some(target) = alias(&response).filter(|_| question.query_type() != RecordType::CNAME) {
            let question = Query::query(target, question.query_type());
            return Own::Alias(Box::new(Alias { response, limit, question }));
        }
        Own::Answer(encode(&response, limit).unwrap_or_else(|| failure(query, ResponseCode::ServFail)))
    }

    fn wire(&self, record: &Record, owner: Option<Name>) -> Option<WireRecord> {
        let name = |text: &str| Name::from_ascii(format!("{text}.")).ok();
        let data = match &record.data {
            Data::Address(std::net::IpAddr::V4(address)) => RData::A(A(*address)),
            Data::Address(std::net::IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
            Data::Srv { weight, port, target } => RData::SRV(SRV::new(0, *weight, *port, name(target)?)),
            Data::Name(target) => RData::PTR(PTR(name(target)?)),
            Data::Alias(target) => RData::CNAME(CNAME(name(target)?)),
            Data::Ns(target) => RData::NS(NS(name(target)?)),
            Data::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
            Data::Soa => {
                let (server, admin) =
                    (format!("ns.dns.{}", self.domain), format!("hostmaster.{}", self.domain));
                // The serial never changes: nobody transfers this zone.
                RData::SOA(SOA::new(name(&server)?, name(&admin)?, 1, 7200, 1800, 86_400, self.ttl))
            }
        };
        let owner = match owner {
            Some(owner) => owner,
            None => name(&record.name)?,
        };
        Some(WireRecord::from_rdata(owner, self.ttl, data))
    }

    /// Asks the upstream servers one after another, over the transport that the client chose.
    async fn forward(&self, query: &[u8], transport: Transport) -> Vec<u8> {
        let Ok(_place) = self.forwarding.acquire().await else {
            return failure(query, ResponseCode::ServFail);
        };
        for server in &self.upstreams {
            let asking = async {
                match transport {
                    Transport::Udp => ask_udp(*server, query).await,
                    Transport::Tcp => ask_tcp(*server, query).await,
                }
            };
            match tokio::time::timeout(UPSTREAM_PATIENCE, asking).await {
                Ok(Ok(answer)) => {
                    self.metrics.answered("forwarded");
                    return answer;
                }
                Ok(Err(error)) => tracing::debug!(%server, "{error:#}"),
                Err(_) => tracing::debug!(%server, "no answer within {UPSTREAM_PATIENCE:?}"),
            }
        }
        self.metrics.answered("failed");
        failure(query, ResponseCode::ServFail)
    }
}

/// What an answer is an alias of.
fn alias(response: &Message) -> Option<Name> {
    match &response.answers.first()?.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    }
}

fn kind(of: RecordType) -> Kind {
    match of {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::SRV => Kind::Srv,
        RecordType::PTR => Kind::Ptr,
        RecordType::TXT => Kind::Txt,
        RecordType::SOA => Kind::Soa,
        RecordType::NS => Kind::Ns,
        RecordType::ANY => Kind::Any,
        _ => Kind::Other,
    }
}

/// Over the limit, an answer without records that says "ask by TCP".
fn encode(response: &Message, limit: u16) -> Option<Vec<u8>> {
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) { Some(bytes) } else { response.truncate().to_vec().ok() }
}

/// An answer with nothing but a code, made of the query's own head, which may be all of it that can be read.
fn failure(query: &[u8], code: ResponseCode) -> Vec<u8> {
    let Some(id) = query.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)) else { return Vec::new() };
    let mut response = Message::response(id, OpCode::Query);
    response.metadata.response_code = code;
    if let Ok(message) = Message::from_vec(query) {
        response.add_queries(message.queries);
    }
    response.to_vec().unwrap_or_default()
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> anyhow::Result<Vec<u8>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.context("bind")?;
    // Connected, so that only this server's packets are taken.
    socket.connect(server).await.context("connect")?;
    socket.send(query).await.context("send")?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await.context("receive")?;
        if buffer.get(..2) == query.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.context("connect")?;
    write_framed(&mut stream, query).await.context("send")?;
    read_framed(&mut stream).await.context("receive")
}

/// Over TCP a message follows its length in two bytes.
async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    /// One external name: `out` in `shop` is `example.com`.
    struct Out;

    impl Directory for Out {
        fn has_namespace(&self, namespace: &str) -> bool {
            namespace == "shop"
        }
        fn service(&self, _: &str, name: &str) -> Option<zone::Service> {
            let external_name = Some("example.com".to_owned());
            (name == "out").then(|| zone::Service { external_name, ..zone::Service::default() })
        }
        fn endpoints(&self, _: &str, _: &str) -> Vec<zone::Endpoint> {
            Vec::new()
        }
        fn service_at(&self, _: IpAddr) -> Option<(String, String)> {
            None
        }
        fn endpoint_at(&self, _: IpAddr) -> Option<(String, String, zone::Endpoint)> {
            None
        }
    }

    /// Answers every question with 192.0.2.7.
    async fn upstream(socket: UdpSocket) {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).expect("a query");
            let mut response = Message::response(query.metadata.id, OpCode::Query);
            let name = query.queries[0].name().clone();
            response.add_query(query.queries[0].clone());
            response.add_answer(WireRecord::from_rdata(name, 5, RData::A(A([192, 0, 2, 7].into()))));
            socket.send_to(&response.to_vec().expect("encodes"), client).await.expect("sent");
        }
    }

    #[tokio::test]
    async fn an_external_name_is_followed_to_its_addresses() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let server = socket.local_addr().expect("bound");
        tokio::spawn(upstream(socket));
        let resolver = Resolver::new("cluster.local".into(), 5, vec![server], Out, Metrics::default());
        for (kind, expected) in [
            (RecordType::A, "out.shop.svc.cluster.local. CNAME, example.com. A"),
            (RecordType::CNAME, "out.shop.svc.cluster.local. CNAME"),
        ] {
            let mut query = Message::query();
            let name = Name::from_ascii("out.shop.svc.cluster.local.").expect("a name");
            query.add_query(Query::query(name, kind));
            let query = query.to_vec().expect("encodes");
            let own = resolver.answer_own(&query, Transport::Udp);
            let answer = resolver.complete(own, &query, Transport::Udp).await;
            let answers = Message::from_vec(&answer).expect("an answer").answers;
            let told: Vec<_> = answers.iter().map(|r| format!("{} {}", r.name, r.record_type())).collect();
            assert_eq!(told.join(", "), expected);
        }
    }
}
