//! Schemas of CustomResourceDefinitions, and what they make of an object.

use keelson_cel::Declared;
use keelson_machinery::{FieldValidation, prune, validate_lists, validate_schema};
use keelson_schema::{Pattern, from_json_schema, unsupported, violations};
use serde_json::Value;

/// A line with the schema, then an object.
pub(crate) fn schema(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let Some(Ok(schema)) = parts.next().map(serde_json::from_slice::<Value>) else { return };
    if let Some(text) = schema["pattern"].as_str() {
        let _ = Pattern::error(text);
    }
    let _ = unsupported(&schema);
    let sound = violations(&schema, "spec").is_empty();
    let _ = Declared::from_schema(&schema, "Fuzz", true);
    let Ok(ty) = from_json_schema(&schema) else { return };
    let Some(Ok(mut object)) = parts.next().map(serde_json::from_slice::<Value>) else { return };
    if !sound || prune::check(&ty, &mut object, FieldValidation::Ignore).is_err() {
        return;
    }
    prune::default(&ty, &mut object);
    // A default may have unknown fields: that its definition is refused for it is not seen here.
    assert!(prune::check(&ty, &mut object, FieldValidation::Ignore).is_ok(), "{object} was good");
    let mut again = object.clone();
    prune::default(&ty, &mut again);
    assert!(prune::check(&ty, &mut again, FieldValidation::Ignore).is_ok(), "{object} was good");
    assert_eq!(again, object, "what was defaulted and pruned stays as it is");
    let _ = (validate_schema(&ty, &again, Some(&object), "spec"), validate_lists(&ty, &again));
}
