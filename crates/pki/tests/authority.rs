//! Issuing, and requests that others wrote.

use keelson_pki::{Ca, CertificateInfo, Request, Usage};
use std::time::{Duration, SystemTime};

fn day(n: u64) -> Duration {
    Duration::from_secs(n * 24 * 3600)
}

fn request(cn: &str) -> Request {
    Request { cn: cn.to_owned(), orgs: vec![], sans: vec![], usage: Usage::Client, ttl: day(1) }
}

fn csr(cn: &str, sans: &[&str]) -> String {
    let names: Vec<String> = sans.iter().map(|&s| s.to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, cn);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "one");
    params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 10]), "two");
    params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

#[test]
fn a_certificate_says_what_was_asked() {
    let ca = Ca::create("test-ca").unwrap();
    let issued = ca
        .issue(&Request {
            orgs: vec!["system:nodes".into(), "more".into()],
            sans: vec!["node-1".into(), "10.0.0.7".into(), "fd00::7".into()],
            ..request("system:node:node-1")
        })
        .unwrap();
    let info = CertificateInfo::from_pem(&issued.cert_pem).unwrap();
    assert_eq!(info.common_name, "system:node:node-1");
    assert_eq!(info.organizations, ["system:nodes", "more"]);
    assert_eq!(info.sans.into_iter().collect::<Vec<_>>(), ["10.0.0.7", "fd00::7", "node-1"]);
    let left = info.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left <= day(1) && left > day(1) - Duration::from_secs(60), "{left:?}");
}

#[test]
fn a_certificate_does_not_outlive_its_authority() {
    let ca = Ca::create("test-ca").unwrap();
    let issued = ca.issue(&Request { ttl: day(40 * 365), ..request("forever") }).unwrap();
    assert_eq!(CertificateInfo::from_pem(&issued.cert_pem).unwrap().not_after, ca.info().not_after);
}

#[test]
fn a_request_is_signed_with_its_names_and_the_given_usages() {
    let ca = Ca::create("test-ca").unwrap();
    let pem = ca.sign_csr(
        &csr("jane", &["jane.example", "10.1.2.3"]),
        day(2),
        &["digital signature", "client auth"],
    );
    let pem = pem.unwrap();
    let info = CertificateInfo::from_pem(&pem).unwrap();
    assert_eq!((info.common_name.as_str(), info.organizations.len()), ("jane", 2));
    assert!(info.sans.contains("jane.example") && info.sans.contains("10.1.2.3"));

    let der = pem::parse(&pem).unwrap().into_contents();
    let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    let usage = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    assert!(!cert.is_ca());
}

#[test]
fn a_bad_request_is_refused() {
    let ca = Ca::create("test-ca").unwrap();
    let error = |pem: &str, usage: &str| ca.sign_csr(pem, day(1), &[usage]).unwrap_err().to_string();
    assert!(error("nonsense", "client auth").starts_with("sign the certificate request: "));
    assert_eq!(
        error(&csr("jane", &[]), "flying"),
        "sign the certificate request: the usage \"flying\" is not supported"
    );
    // A request whose signature does not fit its content.
    let mut der = pem::parse(csr("jane", &[])).unwrap().into_contents();
    let at = der.windows(4).position(|w| w == b"jane").unwrap();
    der[at] = b'J';
    let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    assert!(error(&forged, "client auth").contains("signature"), "{}", error(&forged, "client auth"));
}

#[test]
fn an_authority_with_the_key_of_another_is_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Ca::load_or_create(&a.path().join("ca.crt"), &a.path().join("ca.key"), "a").unwrap();
    Ca::load_or_create(&b.path().join("ca.crt"), &b.path().join("ca.key"), "b").unwrap();
    let error = Ca::load(&a.path().join("ca.crt"), &b.path().join("ca.key")).err().unwrap();
    assert_eq!(error.to_string(), "use the certificate authority a: its key is another's");
}
