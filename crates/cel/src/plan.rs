//! A checked tree made ready to run: locals numbered, overloads resolved, constants folded.

use crate::ast::{ACCUMULATOR, Entry, Expr, Fold, Item, Kind, Name};
use crate::check::Checked;
use crate::functions::Overload;
use crate::value::{Key, Value};

#[derive(Debug)]
pub(crate) enum Node {
    Constant(Value<'static>),
    Variable(Name),
    /// The place of a fold's variable on the stack.
    Local(usize),
    Field {
        operand: Box<Node>,
        field: Name,
        optional: bool,
    },
    Has {
        operand: Box<Node>,
        field: Name,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
    },
    Call {
        function: Name,
        overloads: Vec<&'static Overload>,
        args: Vec<Node>,
    },
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Conditional(Box<[Node; 3]>),
    NotStrictlyFalse(Box<Node>),
    /// `a.or(b)`, `a.orValue(b)`.
    OptionalOr {
        sides: Box<[Node; 2]>,
        value: bool,
    },
    /// `x in [1, 2, 3]`.
    InConstants(Box<Node>, Vec<Value<'static>>),
    List(Vec<Part>),
    Map(Vec<(Node, Part)>),
    Struct {
        type_name: Name,
        fields: Vec<(Name, Part)>,
    },
    /// Adds to the accumulator in place: the item of a list, or the entries of a map.
    Accumulate {
        slot: usize,
        args: Vec<Node>,
        list: bool,
    },
    Fold(Box<FoldNode>),
    /// A name bound for an expression.
    Bind(Box<[Node; 2]>),
}

#[derive(Debug)]
pub(crate) struct Part {
    pub node: Node,
    pub optional: bool,
}

/// The accumulator takes the next place of the stack, the variables those after it.
#[derive(Debug)]
pub(crate) struct FoldNode {
    pub range: Node,
    pub two: bool,
    pub init: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

impl Node {
    /// Whether the node selects from a variable: such chains cost one for each step, others one more to begin.
    pub(crate) fn is_attribute(&self) -> bool {
        match self {
            Node::Variable(_) | Node::Local(_) | Node::Field { .. } | Node::Index { .. } => true,
            Node::Conditional(parts) => parts[1].is_attribute() && parts[2].is_attribute(),
            _ => false,
        }
    }

    fn constant(&self) -> Option<&Value<'static>> {
        match self {
            Node::Constant(value) => Some(value),
            _ => None,
        }
    }
}

pub(crate) fn plan(checked: &Checked) -> Node {
    Planner { checked, locals: Vec::new() }.plan(&checked.ast.root)
}

struct Planner<'p> {
    checked: &'p Checked,
    locals: Vec<&'p str>,
}

impl<'p> Planner<'p> {
    fn plan(&mut self, expr: &'p Expr) -> Node {
        match &expr.kind {
            Kind::Invalid => Node::Constant(Value::Null),
            Kind::Literal(value) => Node::Constant(value.clone()),
            Kind::Ident(name) => match self.locals.iter().rposition(|local| *local == &**name) {
                Some(slot) => Node::Local(slot),
                None => Node::Variable(name.clone()),
            },
            Kind::Select { operand, field, test_only } => {
                let operand = Box::new(self.plan(operand));
                let field = field.clone();
                if *test_only {
                    Node::Has { operand, field }
                } else {
                    Node::Field { operand, field, optional: false }
                }
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => {
                let fields = fields.iter().map(|f| (f.name.clone(), self.part(&f.value, f.optional)));
                Node::Struct { type_name: name.clone(), fields: fields.collect() }
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn pair(&mut self, args: Vec<&'p Expr>) -> Option<Box<[Node; 2]>> {
        let nodes: Vec<Node> = args.into_iter().map(|arg| self.plan(arg)).collect();
        <[Node; 2]>::try_from(nodes).ok().map(Box::new)
    }

    fn call(
        &mut self,
        expr: &'p Expr,
        function: &'p Name,
        target: Option<&'p Expr>,
        args: &'p [Expr],
    ) -> Node {
        let all: Vec<&'p Expr> = target.into_iter().chain(args).collect();
        let overloads = self.checked.overloads[expr.id as usize].clone();
        let only = |id: &str| overloads.iter().all(|o| o.id == id);
        let node = match &**function {
            "_&&_" => self.pair(all.clone()).map(Node::And),
            "_||_" => self.pair(all.clone()).map(Node::Or),
            "or" if only("optional_or_optional") => {
                self.pair(all.clone()).map(|sides| Node::OptionalOr { sides, value: false })
            }
            "orValue" if only("optional_orValue_value") => {
                self.pair(all.clone()).map(|sides| Node::OptionalOr { sides, value: true })
            }
            "_?_:_" => {
                let nodes: Vec<Node> = all.iter().map(|arg| self.plan(arg)).collect();
                <[Node; 3]>::try_from(nodes).ok().map(|parts| Node::Conditional(Box::new(parts)))
            }
            "@not_strictly_false" => all.first().map(|arg| Node::NotStrictlyFalse(Box::new(self.plan(arg)))),
            "_[_]" | "_[?_]" => self.pair(all.clone()).map(|pair| {
                let [operand, index] = *pair;
                let (operand, index) = (Box::new(operand), Box::new(index));
                Node::Index { operand, index, optional: &**function == "_[?_]" }
            }),
            "_?._" => self.pair(all.clone()).and_then(|pair| {
                let [operand, field] = *pair;
                let field = field.constant()?.as_str()?.into();
                Some(Node::Field { operand: Box::new(operand), field, optional: true })
            }),
            "_+_" | "cel.@mapInsert" => self.accumulate(function, args),
            _ => None,
        };
        node.unwrap_or_else(|| {
            let args: Vec<Node> = all.into_iter().map(|arg| self.plan(arg)).collect();
            fold_constants(function, overloads, args)
        })
    }

    /// A step of a macro's fold that adds to its accumulator.
    fn accumulate(&mut self, function: &str, args: &'p [Expr]) -> Option<Node> {
        let (first, rest) = args.split_first()?;
        let Kind::Ident(name) = &first.kind else { return None };
        let slot = self.locals.iter().rposition(|local| *local == &**name)?;
        if **name != *ACCUMULATOR {
            return None;
        }
        let list = function == "_+_";
        if list && !matches!(rest.first().map(|r| &r.kind), Some(Kind::List(items)) if items.len() == 1) {
            return None;
        }
        Some(Node::Accumulate { slot, args: rest.iter().map(|arg| self.plan(arg)).collect(), list })
    }

    fn part(&mut self, value: &'p Expr, optional: bool) -> Part {
        Part { node: self.plan(value), optional }
    }

    fn list(&mut self, items: &'p [Item]) -> Node {
        let parts: Vec<Part> = items.iter().map(|i| self.part(&i.value, i.optional)).collect();
        let constants = parts.iter().map(|part| part.node.constant().filter(|_| !part.optional).cloned());
        match constants.collect::<Option<Vec<_>>>() {
            Some(values) => Node::Constant(Value::list(values)),
            None => Node::List(parts),
        }
    }

    fn map(&mut self, entries: &'p [Entry]) -> Node {
        let parts: Vec<(Node, Part)> =
            entries.iter().map(|e| (self.plan(&e.key), self.part(&e.value, e.optional))).collect();
        let constants = parts.iter().map(|(key, part)| {
            let key = Key::from_value(key.constant()?).ok()?;
            Some((key, part.node.constant().filter(|_| !part.optional)?.clone()))
        });
        match constants.collect::<Option<std::collections::BTreeMap<_, _>>>() {
            // A repeated key is an error that evaluation reports.
            Some(values) if values.len() == parts.len() => Node::Constant(Value::map(values)),
            _ => Node::Map(parts),
        }
    }

    fn fold(&mut self, fold: &'p Fold) -> Node {
        let (range, init) = (self.plan(&fold.range), self.plan(&fold.init));
        let depth = self.locals.len();
        self.locals.push(&fold.accumulator);
        if fold.is_bind() {
            let result = self.plan(&fold.result);
            self.locals.truncate(depth);
            return Node::Bind(Box::new([init, result]));
        }
        self.locals.push(&fold.var);
        self.locals.extend(fold.var2.as_deref());
        let (condition, step) = (self.plan(&fold.condition), self.plan(&fold.step));
        self.locals.truncate(depth + 1);
        let result = self.plan(&fold.result);
        self.locals.truncate(depth);
        Node::Fold(Box::new(FoldNode { range, two: fold.var2.is_some(), init, condition, step, result }))
    }
}

fn fold_constants(function: &Name, overloads: Vec<&'static Overload>, mut args: Vec<Node>) -> Node {
    const CONVERSIONS: [&str; 10] =
        ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];
    if let [Node::Constant(value)] = &args[..]
        && CONVERSIONS.contains(&&**function)
        && let Some(overload) = overloads.iter().find(|o| o.accepts(std::slice::from_ref(value)))
        && let Ok(converted) = (overload.call)(std::slice::from_ref(value))
    {
        return Node::Constant(converted);
    }
    if &**function == "@in"
        && overloads.iter().all(|o| o.id == "in_list")
        && let [_, Node::Constant(Value::List(list))] = &args[..]
        && let Ok(values) = list.to_vec()
    {
        let primitive = |v: &Value<'_>| {
            matches!(
                v,
                Value::Bool(_)
                    | Value::Int(_)
                    | Value::Uint(_)
                    | Value::Double(_)
                    | Value::String(_)
                    | Value::Null
            )
        };
        if values.iter().all(primitive) {
            return Node::InConstants(Box::new(args.swap_remove(0)), values);
        }
    }
    Node::Call { function: function.clone(), overloads, args }
}
