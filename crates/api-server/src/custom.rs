//! Custom resources: what a CustomResourceDefinition adds to the table of resources.

/// A served version of a definition.
#[derive(Debug)]
pub struct Custom {}

/// Where a custom resource keeps its replicas: JSON pointers.
pub struct ScalePaths {
    pub spec: String,
    pub status: String,
    pub selector: Option<String>,
}

impl Custom {
    /// `additionalPrinterColumns`, as written.
    pub fn columns(&self) -> &[serde_json::Value] {
        &[]
    }

    pub fn scale(&self) -> Option<ScalePaths> {
        None
    }
}
