//! What a certificate request asks for, and what the signers accept.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

const NODE: &str = "system:node:";
const NODES: &str = "system:nodes";

#[derive(Debug)]
pub struct Request {
    pub pem: String,
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// How many subject alternative names are of other kinds.
    pub other_names: usize,
}

impl Request {
    pub fn parse(pem: &str) -> Result<Request, String> {
        let (_, document) = parse_x509_pem(pem.as_bytes()).map_err(|e| e.to_string())?;
        let (_, csr) = X509CertificationRequest::from_der(&document.contents).map_err(|e| e.to_string())?;
        let subject = &csr.certification_request_info.subject;
        let text = |values: Vec<Result<&str, _>>| -> Vec<String> {
            values.into_iter().flatten().map(str::to_owned).collect()
        };
        let mut request = Request {
            pem: pem.to_owned(),
            common_name: text(subject.iter_common_name().map(|a| a.as_str()).collect())
                .pop()
                .unwrap_or_default(),
            organizations: text(subject.iter_organization().map(|a| a.as_str()).collect()),
            names: Vec::new(),
            other_names: 0,
        };
        for extension in csr.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(san) = extension else { continue };
            for name in &san.general_names {
                match name {
                    GeneralName::DNSName(dns) => request.names.push((*dns).to_owned()),
                    GeneralName::IPAddress(bytes) => request.names.push(format!("{bytes:?}")),
                    _ => request.other_names += 1,
                }
            }
        }
        Ok(request)
    }

    fn check_node(&self) -> Result<(), String> {
        if self.organizations != [NODES] {
            return Err("subject organization is not system:nodes".to_owned());
        }
        if self.other_names > 0 {
            return Err("email and URI subjectAltNames are not allowed".to_owned());
        }
        if !self.common_name.starts_with(NODE) {
            return Err("subject common name does not begin with system:node:".to_owned());
        }
        Ok(())
    }

    pub fn check_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.check_node()?;
        if !self.names.is_empty() {
            return Err("DNS and IP subjectAltNames are not allowed".to_owned());
        }
        exactly(usages, "client auth")
    }

    pub fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.check_node()?;
        if self.names.is_empty() {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        exactly(usages, "server auth")
    }
}

/// A signature, this usage, and encipherment for keys that can.
fn exactly(usages: &[String], usage: &str) -> Result<(), String> {
    let known = ["digital signature", "key encipherment", usage];
    let has = |wanted: &str| usages.iter().any(|u| u == wanted);
    match has("digital signature") && has(usage) && usages.iter().all(|u| known.contains(&u.as_str())) {
        true => Ok(()),
        false => Err(format!("usages did not match {known:?}")),
    }
}

pub fn check_client(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(bad) = usages.iter().find(|u| !allowed.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {bad}"));
    }
    match usages.iter().any(|u| u == "client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".to_owned()),
    }
}
