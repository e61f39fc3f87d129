//! What a migration says in the definition of a custom resource: the condition `StorageMigrating`, and in the end that
//! objects are stored in one version alone.

use serde_json::{Value, json};

const CONDITION: &str = "StorageMigrating";

/// The status to apply while a migration runs.
pub fn running(definition: &Value, migration: &str) -> Value {
    let message = format!("Migration {migration} is running");
    json!({"conditions": [condition(definition, "True", "MigrationRunning", &message)]})
}

/// The status to apply when it has ended. The other stored versions are forgotten if nothing about the definition has
/// changed since the start. (Upstream forgets them after a failure too, when objects may still be in them.)
pub fn ended(definition: &Value, succeeded: bool) -> Value {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    let at_start = conditions.into_iter().find(|c| c["type"] == CONDITION);
    let same = at_start.is_some_and(|c| c["observedGeneration"] == definition["metadata"]["generation"]);
    let (reason, message) = match (succeeded, same) {
        (true, true) => {
            ("MigrationSucceeded", "The migration has succeeded and the stored versions have been updated")
        }
        (true, false) => (
            "MigrationSucceeded",
            "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
        ),
        (false, _) => ("MigrationFailed", "The migration has failed"),
    };
    let mut status = json!({"conditions": [condition(definition, "False", reason, message)]});
    if succeeded && same {
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let stored = versions.into_iter().find(|v| v["storage"] == true).map(|v| &v["name"]);
        status["storedVersions"] = json!(stored.into_iter().collect::<Vec<_>>());
    }
    status
}

fn condition(definition: &Value, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": crate::kit::now(),
        "observedGeneration": definition["metadata"]["generation"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_forgotten_after_success_unless_the_definition_has_changed() {
        let updated = "The migration has succeeded and the stored versions have been updated";
        let mismatch = "The migration has succeeded but the stored versions have not been updated due to a generation mismatch";
        for (at_start, succeeded, message, stored) in [
            (json!(2), true, updated, json!(["v2"])),
            (json!(1), true, mismatch, Value::Null),
            (Value::Null, true, mismatch, Value::Null),
            (json!(2), false, "The migration has failed", Value::Null),
        ] {
            let mut definition = json!({"metadata": {"generation": 2},
                "spec": {"versions": [{"name": "v1", "storage": false}, {"name": "v2", "storage": true}]},
                "status": {"conditions": [{"type": "Established", "status": "True"}]}});
            if at_start.is_number() {
                let mut begun = running(&definition, "m");
                begun["conditions"][0]["observedGeneration"] = at_start;
                definition["status"] = begun;
            }
            let status = ended(&definition, succeeded);
            let condition = &status["conditions"][0];
            assert_eq!((&condition["message"], &condition["status"]), (&json!(message), &json!("False")));
            assert_eq!(status["storedVersions"], stored);
        }
    }
}
