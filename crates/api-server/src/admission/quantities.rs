//! Sums and maxima of resource lists (`{"cpu": "100m", …}`), as LimitRanger and quotas need them.

use std::collections::BTreeMap;

use keelson_api_types::Quantity;
use serde_json::Value;

use super::items;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// A resource list; what does not parse is left to validation.
pub fn amounts(list: &Value) -> Amounts {
    list.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), parse(value)?)))
        .collect()
}

fn parse(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = match total.get(name) {
            Some(have) => have.add(amount),
            None => *amount,
        };
        total.insert(name.clone(), sum);
    }
}

/// Raises each amount to the other's where that is larger.
pub fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let larger = total.get(name).is_none_or(|have| have.nanos() < amount.nanos());
        if larger {
            total.insert(name.clone(), *amount);
        }
    }
}

/// What a pod's containers ask for together: `part` is `requests` or `limits`. Init containers run one
/// after another, those that restart always beside everything after them.
pub fn pod_total(pod: &Value, part: &str) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"][part]);
    let mut total = Amounts::new();
    for container in items(&pod["spec"]["containers"]) {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut largest_init) = (Amounts::new(), Amounts::new());
    for container in items(&pod["spec"]["initContainers"]) {
        let mut own = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut largest_init, &own);
    }
    raise(&mut total, &largest_init);
    for (name, amount) in amounts(&pod["spec"]["resources"][part]) {
        let pod_level = matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-");
        if pod_level {
            total.insert(name, amount);
        }
    }
    total
}

/// What a pod needs of its node: its requests and the overhead of its runtime.
pub fn pod_requests(pod: &Value) -> Amounts {
    let mut total = pod_total(pod, "requests");
    add(&mut total, &amounts(&pod["spec"]["overhead"]));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_by_their_maximum_and_sidecars_always() {
        let cpu = |q: &str| json!({"resources": {"requests": {"cpu": q}}});
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        let cases = [
            (json!({"containers": [cpu("1"), cpu("500m")]}), "1500m"),
            (json!({"containers": [cpu("1")], "initContainers": [cpu("3"), cpu("2")]}), "3"),
            (json!({"containers": [cpu("1")], "initContainers": [sidecar, cpu("500m")]}), "2"),
            (json!({"containers": [cpu("1")], "initContainers": [sidecar, cpu("5")]}), "6"),
            (json!({"containers": [cpu("1")], "resources": {"requests": {"cpu": "7"}}}), "7"),
        ];
        for (spec, want) in cases {
            let total = pod_total(&json!({"spec": spec}), "requests");
            assert_eq!(total["cpu"].nanos(), Quantity::parse(want).expect("a quantity").nanos(), "{spec}");
        }
    }
}
