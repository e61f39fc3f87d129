//! Evaluation: a walk over the plan that counts what it costs.

use crate::ast::Name;
use crate::cost;
use crate::env::Activation;
use crate::error::{EvalError, PER_CALL_LIMIT};
use crate::estimate::{LIST_CREATE, MAP_CREATE, STRUCT_CREATE};
use crate::functions::Overload;
use crate::plan::{FoldNode, Node, Part};
use crate::value::{Key, Struct, Text, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) struct Machine<'m, 'a> {
    activation: &'m dyn Activation<'a>,
    /// Variables of folds. An accumulator may be an error that a later step absorbs.
    locals: Vec<Outcome<'a>>,
    cost: u64,
    limit: u64,
}

impl<'m, 'a> Machine<'m, 'a> {
    pub(crate) fn new(activation: &'m dyn Activation<'a>, budget: u64) -> Self {
        Machine { activation, locals: Vec::new(), cost: 0, limit: budget.min(PER_CALL_LIMIT) }
    }

    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        match self.cost > self.limit {
            true if self.limit < PER_CALL_LIMIT => Err(EvalError::OutOfBudget),
            true => Err(EvalError::CallLimit),
            false => Ok(()),
        }
    }

    pub(crate) fn eval(&mut self, node: &Node) -> Outcome<'a> {
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Variable(name) => {
                self.charge(1)?;
                let found = self.activation.resolve(name);
                found.unwrap_or_else(|| Err(EvalError::new(format!("no such attribute(s): {name}"))))
            }
            Node::Local(slot) => {
                self.charge(1)?;
                self.locals[*slot].clone()
            }
            Node::Field { operand, field, optional } => self.field(operand, field, *optional),
            Node::Has { operand, field } => self.has(operand, field),
            Node::Index { operand, index, optional } => self.index(operand, index, *optional),
            Node::Call { function, overloads, args } => {
                let args = self.args(args)?;
                self.call(function, overloads, &args)
            }
            Node::And(sides) => self.logical(sides, false),
            Node::Or(sides) => self.logical(sides, true),
            Node::Conditional(parts) => {
                let result =
                    self.branch(&parts[0]).and_then(|then| self.eval(&parts[if then { 1 } else { 2 }]));
                if node.is_attribute() {
                    self.cost = self.cost.saturating_sub(1);
                }
                result
            }
            Node::NotStrictlyFalse(operand) => {
                let value = self.eval(operand);
                self.charge(1)?;
                match value {
                    Err(error) if error.is_limit() => Err(error),
                    value => Ok((!matches!(value, Ok(Value::Bool(false)))).into()),
                }
            }
            Node::OptionalOr { sides, value } => match self.eval(&sides[0])? {
                Value::Optional(None) => self.eval(&sides[1]),
                Value::Optional(Some(inner)) if *value => Ok(Value::clone(&inner)),
                other => Ok(other),
            },
            Node::InConstants(item, values) => {
                self.eval(item).map(|item| values.iter().any(|v| item.equals(v)).into())
            }
            Node::List(parts) => self.list(parts),
            Node::Map(parts) => self.map(parts),
            Node::Struct { type_name, fields } => self.structure(type_name, fields),
            Node::Accumulate { slot, args, list } => self.accumulate(*slot, args, *list),
            Node::Fold(fold) => self.fold(fold),
            Node::Bind(parts) => self.bind(&parts[0], &parts[1]),
        }
    }

    fn args(&mut self, args: &[Node]) -> Result<Vec<Value<'a>>, EvalError> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.eval(arg)?);
        }
        Ok(values)
    }

    fn call(&mut self, function: &str, overloads: &[&'static Overload], args: &[Value<'a>]) -> Outcome<'a> {
        let Some(overload) = overloads.iter().find(|overload| overload.accepts(args)) else {
            let types: Vec<_> = args.iter().map(Value::type_name).collect();
            return Err(EvalError::new(format!("no such overload: {function}({})", types.join(", "))));
        };
        let result = (overload.call)(args);
        self.charge(cost::of_call(function, &overload.id, args, result.as_ref().ok()))?;
        result
    }

    fn branch(&mut self, condition: &Node) -> Result<bool, EvalError> {
        self.eval(condition)?.as_bool().ok_or_else(EvalError::no_such_overload)
    }

    fn bind(&mut self, value: &Node, result: &Node) -> Outcome<'a> {
        let bound = self.eval(value);
        if bound.as_ref().is_err_and(EvalError::is_limit) {
            return bound;
        }
        self.locals.push(bound);
        let result = self.eval(result);
        self.locals.pop();
        result
    }

    fn structure(&mut self, type_name: &Name, fields: &[(Name, Part)]) -> Outcome<'a> {
        let mut built = BTreeMap::new();
        for (name, part) in fields {
            if let Some(value) = self.part(part)? {
                built.insert(name.clone(), value);
            }
        }
        self.charge(STRUCT_CREATE)?;
        Ok(Value::Struct(Arc::new(Struct { type_name: type_name.clone(), fields: built })))
    }

    /// What a chain that does not begin with a variable costs to begin.
    fn operand(&mut self, node: &Node) -> Outcome<'a> {
        let value = self.eval(node)?;
        if !node.is_attribute() {
            self.charge(1)?;
        }
        Ok(value)
    }

    fn field(&mut self, operand: &Node, field: &str, optional: bool) -> Outcome<'a> {
        // Fields that the activation computes when they are first used.
        if let Node::Variable(name) = operand
            && let Some(value) = self.activation.resolve_field(name, field)
        {
            self.charge(2)?;
            return value;
        }
        let value = self.operand(operand)?;
        self.select(value, &Value::from(field), optional)
    }

    fn index(&mut self, operand: &Node, index: &Node, optional: bool) -> Outcome<'a> {
        let value = self.operand(operand)?;
        let key = self.eval(index)?;
        if index.is_attribute() {
            // The index's own variable stands for the selection.
            self.cost = self.cost.saturating_sub(1);
        }
        self.select(value, &key, optional)
    }

    fn select(&mut self, value: Value<'a>, key: &Value<'a>, optional: bool) -> Outcome<'a> {
        let (value, optional) = match value {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => (Value::clone(&inner), true),
            value => (value, optional),
        };
        match find(&value, key)? {
            Some(found) => {
                self.charge(1)?;
                Ok(if optional { Value::some(found) } else { found })
            }
            None if optional => Ok(Value::Optional(None)),
            None => {
                self.charge(1)?;
                let what = if let Value::List(_) = value { "index out of bounds" } else { "no such key" };
                Err(EvalError::new(format!("{what}: {key}")))
            }
        }
    }

    fn has(&mut self, operand: &Node, field: &str) -> Outcome<'a> {
        if let Node::Variable(name) = operand
            && let Some(value) = self.activation.resolve_field(name, field)
        {
            self.charge(1)?;
            return value.map(|_| true.into());
        }
        let mut value = self.operand(operand)?;
        while let Value::Optional(inner) = value {
            match inner {
                Some(inner) => value = Value::clone(&inner),
                None => return Ok(false.into()),
            }
        }
        Ok(match &value {
            Value::Map(map) => map.get_str(field).is_some(),
            Value::Struct(object) => object.fields.contains_key(field),
            _ => false,
        }
        .into())
    }

    /// `&&` and `||`: a side that decides absorbs the other's error.
    fn logical(&mut self, sides: &[Node; 2], decisive: bool) -> Outcome<'a> {
        let mut failed = None;
        for side in sides {
            match self.eval(side) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(value.into()),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(EvalError::no_such_overload())),
                Err(error) if error.is_limit() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok((!decisive).into()), Err)
    }

    /// The value of a list's or map's part; none where an optional one has none.
    fn part(&mut self, part: &Part) -> Result<Option<Value<'a>>, EvalError> {
        match self.eval(&part.node)? {
            Value::Optional(value) if part.optional => Ok(value.map(|v| Value::clone(&v))),
            value => Ok(Some(value)),
        }
    }

    fn list(&mut self, parts: &[Part]) -> Outcome<'a> {
        let mut items = Vec::with_capacity(parts.len());
        for part in parts {
            items.extend(self.part(part)?);
        }
        self.charge(LIST_CREATE)?;
        Ok(Value::list(items))
    }

    fn map(&mut self, parts: &[(Node, Part)]) -> Outcome<'a> {
        let mut entries = BTreeMap::new();
        for (key, part) in parts {
            let key = Key::from_value(&self.eval(key)?)?;
            if let Some(value) = self.part(part)?
                && let Some(_) = entries.insert(key.clone(), value)
            {
                return Err(EvalError::new(format!("Failed with repeated key: {}", key.to_value())));
            }
        }
        self.charge(MAP_CREATE)?;
        Ok(Value::map(entries))
    }

    fn accumulate(&mut self, slot: usize, args: &[Node], list: bool) -> Outcome<'a> {
        self.charge(2)?;
        let mut args = self.args(args)?;
        // Taken, not shared, so that it grows in place.
        let accumulator = std::mem::replace(&mut self.locals[slot], Ok(Value::Null))?;
        match (accumulator, args.len()) {
            (Value::List(mut own), 1) if list => {
                if let Value::List(items) = &args[0] {
                    for item in items.iter() {
                        own.push(item?)?;
                    }
                }
                Ok(Value::List(own))
            }
            (Value::Map(own), 2) => {
                let value = args.remove(1);
                own.insert(Key::from_value(&args[0])?, value).map(Value::Map)
            }
            (Value::Map(mut own), 1) => {
                let Value::Map(more) = &args[0] else { return Err(EvalError::no_such_overload()) };
                for key in more.keys() {
                    let value = more.get(&key).unwrap_or(Ok(Value::Null))?;
                    own = own.insert(key, value)?;
                }
                Ok(Value::Map(own))
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn fold(&mut self, fold: &FoldNode) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let depth = self.locals.len();
        let init = self.eval(&fold.init);
        self.locals.push(init);
        let rounds = match &range {
            Value::List(list) => (0..list.len()).try_for_each(|i| {
                let item = list.get(i).unwrap_or(Ok(Value::Null));
                let index = Value::Int(i as i64);
                self.round(fold, depth, if fold.two { Ok(index) } else { item.clone() }, || item)
            }),
            Value::Map(map) => map.keys().into_iter().try_for_each(|key| {
                self.round(fold, depth, Ok(key.to_value()), || map.get(&key).unwrap_or(Ok(Value::Null)))
            }),
            _ => Err(Stop::Failed(EvalError::no_such_overload())),
        };
        self.locals.truncate(depth + 1);
        let result = match rounds {
            Err(Stop::Failed(error)) => Err(error),
            Ok(()) | Err(Stop::Decided) => self.eval(&fold.result),
        };
        self.locals.truncate(depth);
        result
    }

    fn round(
        &mut self,
        fold: &FoldNode,
        depth: usize,
        first: Outcome<'a>,
        second: impl FnOnce() -> Outcome<'a>,
    ) -> Result<(), Stop> {
        self.locals.truncate(depth + 1);
        self.locals.push(first);
        if fold.two {
            self.locals.push(second());
        }
        if let Value::Bool(false) = self.eval(&fold.condition).map_err(Stop::Failed)? {
            return Err(Stop::Decided);
        }
        match self.eval(&fold.step) {
            Err(error) if error.is_limit() => Err(Stop::Failed(error)),
            // Only quantifiers absorb errors; their conditions are not constant.
            Err(error) if matches!(fold.condition, Node::Constant(_)) => Err(Stop::Failed(error)),
            outcome => {
                self.locals[depth] = outcome;
                Ok(())
            }
        }
    }
}

enum Stop {
    /// The condition says that the rest cannot matter.
    Decided,
    Failed(EvalError),
}

/// What a key selects from a value; `None` where there is nothing.
fn find<'a>(value: &Value<'a>, key: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
    match value {
        Value::Map(map) => map.get(&Key::from_value(key)?).transpose(),
        Value::List(list) => {
            let index = match Key::from_value(key)? {
                Key::Int(index) => usize::try_from(index).ok(),
                Key::Uint(index) => usize::try_from(index).ok(),
                _ => {
                    return Err(EvalError::new(format!(
                        "unsupported index type '{}' in list",
                        key.type_name()
                    )));
                }
            };
            index.and_then(|index| list.get(index)).transpose()
        }
        Value::Struct(object) => {
            let Value::String(name) = key else { return Ok(None) };
            let unset = &*object.type_name == "JSONPatch" && ["op", "path", "from"].contains(&&**name);
            let found = object.fields.get(&**name).cloned();
            Ok(found.or_else(|| unset.then_some(Value::String(Text::Borrowed("")))))
        }
        _ => Ok(None),
    }
}
