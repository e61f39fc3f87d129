//! Recursive descent over the CEL grammar; macros are expanded as their calls are read.

use crate::ast::{Ast, Entry, Expr, Field, Fold, Id, Item, Kind, Name};
use crate::escape::RESERVED;
use crate::lexer::{Spanned, Token, tokens};
use crate::macros;
use crate::source::Sink;
use crate::value::Value;

/// Trees higher than this are refused, as upstream refuses them.
const MAX_HEIGHT: u16 = 250;
/// Brackets within brackets; each level takes several calls.
const MAX_NESTING: u16 = 100;
const MAX_CODE_POINTS: usize = 100_000;
/// `optMap` repeats its target, so that short sources can make large trees.
const MAX_NODES: usize = 200_000;

const STARTS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                      BYTES, IDENTIFIER}";

/// Parses a source; problems go to `sink`, and the tree is to be used only where there are none.
pub(crate) fn parse(source: &str, sink: &mut Sink<'_>) -> Ast {
    let mut parser = Parser { tokens: Vec::new(), at: 0, depth: 0, positions: Vec::new(), sink };
    let root = parser.run(source).unwrap_or_else(|Stop| parser.node(0, Kind::Invalid));
    Ast { root, positions: parser.positions }
}

/// A syntax error was reported; nothing after it can be understood.
pub(crate) struct Stop;

type Parsed = Result<Expr, Stop>;

pub(crate) struct Parser<'p, 's> {
    tokens: Vec<Spanned>,
    at: usize,
    depth: u16,
    positions: Vec<u32>,
    sink: &'p mut Sink<'s>,
}

/// Binary operators with how tightly they bind. `&&` and `||` are not among them: their chains are balanced.
const OPERATORS: [(&str, &str, u8); 12] = [
    ("<", "_<_", 1),
    ("<=", "_<=_", 1),
    (">=", "_>=_", 1),
    (">", "_>_", 1),
    ("==", "_==_", 1),
    ("!=", "_!=_", 1),
    ("in", "@in", 1),
    ("+", "_+_", 2),
    ("-", "_-_", 2),
    ("*", "_*_", 3),
    ("/", "_/_", 3),
    ("%", "_%_", 3),
];

impl Parser<'_, '_> {
    fn run(&mut self, source: &str) -> Parsed {
        let size = source.chars().count();
        if size > MAX_CODE_POINTS {
            let limit =
                format!("expression code point size exceeds limit: size: {size}, limit {MAX_CODE_POINTS}");
            return self.stop(0, limit);
        }
        let (tokens, errors) = tokens(source);
        self.tokens = tokens;
        for error in &errors {
            self.sink.report(error.position, &error.message);
        }
        if !errors.is_empty() {
            return Err(Stop);
        }
        let root = self.expr()?;
        match self.peek() {
            Token::End => Ok(root),
            _ => {
                let found = &self.tokens[self.at];
                self.stop(
                    found.position,
                    format!("Syntax error: extraneous input '{}' expecting <EOF>", found.text),
                )
            }
        }
    }

    // Tokens.

    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(s) if *s == symbol)
    }

    fn position(&self) -> u32 {
        self.tokens[self.at].position
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<u32, Stop> {
        let position = self.position();
        if self.eat(symbol) { Ok(position) } else { self.unexpected(&format!("'{symbol}'")) }
    }

    fn unexpected<T>(&mut self, expected: &str) -> Result<T, Stop> {
        let found = &self.tokens[self.at];
        let message = format!("Syntax error: mismatched input '{}' expecting {expected}", found.text);
        self.stop(found.position, message)
    }

    fn stop<T>(&mut self, position: u32, message: String) -> Result<T, Stop> {
        self.sink.report(position, message);
        Err(Stop)
    }

    // Nodes; also what macros build with.

    /// An error that does not keep the rest from being read.
    pub(crate) fn error(&mut self, position: u32, message: impl Into<String>) -> Expr {
        self.sink.report(position, message);
        self.node(position, Kind::Invalid)
    }

    pub(crate) fn position_of(&self, expr: &Expr) -> u32 {
        self.positions[expr.id as usize]
    }

    fn new_id(&mut self, position: u32) -> Id {
        self.positions.push(position);
        (self.positions.len() - 1) as Id
    }

    pub(crate) fn node(&mut self, position: u32, kind: Kind) -> Expr {
        let below = height_below(&kind);
        let id = self.new_id(position);
        if below >= MAX_HEIGHT || self.positions.len() > MAX_NODES {
            if self.sink.is_empty() {
                self.sink.report(position, format!("expression recursion limit exceeded: {MAX_HEIGHT}"));
            }
            return Expr { id, height: 0, kind: Kind::Invalid };
        }
        Expr { id, height: below + 1, kind }
    }

    pub(crate) fn literal(&mut self, position: u32, value: Value<'static>) -> Expr {
        self.node(position, Kind::Literal(value))
    }

    pub(crate) fn ident(&mut self, position: u32, name: &str) -> Expr {
        self.node(position, Kind::Ident(name.into()))
    }

    pub(crate) fn call(&mut self, position: u32, function: &str, args: Vec<Expr>) -> Expr {
        self.node(position, Kind::Call { function: function.into(), target: None, args })
    }

    pub(crate) fn member(&mut self, position: u32, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        self.node(position, Kind::Call { function: function.into(), target: Some(Box::new(target)), args })
    }

    pub(crate) fn list(&mut self, position: u32, items: Vec<Expr>) -> Expr {
        let items = items.into_iter().map(|value| Item { value, optional: false }).collect();
        self.node(position, Kind::List(items))
    }

    pub(crate) fn fold(&mut self, position: u32, fold: Fold) -> Expr {
        self.node(position, Kind::Fold(Box::new(fold)))
    }

    /// A copy whose expressions have identities of their own.
    pub(crate) fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        expr.id = self.new_id(self.positions[expr.id as usize]);
        match &mut expr.kind {
            Kind::Invalid | Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => self.renumber(operand),
            Kind::Call { target, args, .. } => {
                target.iter_mut().for_each(|t| self.renumber(t));
                args.iter_mut().for_each(|a| self.renumber(a));
            }
            Kind::List(items) => items.iter_mut().for_each(|i| self.renumber(&mut i.value)),
            Kind::Map(entries) => {
                for entry in entries {
                    self.renumber(&mut entry.key);
                    self.renumber(&mut entry.value);
                }
            }
            Kind::Struct { fields, .. } => fields.iter_mut().for_each(|f| self.renumber(&mut f.value)),
            Kind::Fold(fold) => {
                let fold = &mut **fold;
                for part in
                    [&mut fold.range, &mut fold.init, &mut fold.condition, &mut fold.step, &mut fold.result]
                {
                    self.renumber(part);
                }
            }
        }
    }

    // The grammar.

    fn expr(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            let message = format!("expression recursion limit exceeded: {MAX_NESTING}");
            return self.stop(self.position(), message);
        }
        let condition = self.logical()?;
        let position = self.position();
        let expr = if self.eat("?") {
            let then = self.logical()?;
            self.expect(":")?;
            let otherwise = self.expr()?;
            self.call(position, "_?_:_", vec![condition, then, otherwise])
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// `||` over `&&` over other operators, the chains as balanced trees: long ones are common.
    fn logical(&mut self) -> Parsed {
        let (mut ors, mut or_positions) = (Vec::new(), Vec::new());
        loop {
            let (mut ands, mut and_positions) = (vec![Some(self.binary(1)?)], Vec::new());
            while self.is("&&") {
                and_positions.push(self.position());
                self.advance();
                ands.push(Some(self.binary(1)?));
            }
            ors.push(Some(self.chain("_&&_", &mut ands, &and_positions)?));
            if !self.is("||") {
                return self.chain("_||_", &mut ors, &or_positions);
            }
            or_positions.push(self.position());
            self.advance();
        }
    }

    fn chain(&mut self, function: &str, terms: &mut [Option<Expr>], positions: &[u32]) -> Parsed {
        match positions.len() {
            0 => terms[0].take().ok_or(Stop),
            count => self.balance(function, terms, positions, 0, count - 1),
        }
    }

    fn balance(
        &mut self,
        function: &str,
        terms: &mut [Option<Expr>],
        positions: &[u32],
        low: usize,
        high: usize,
    ) -> Parsed {
        let middle = (low + high).div_ceil(2);
        let left = if middle == low {
            terms[middle].take().ok_or(Stop)?
        } else {
            self.balance(function, terms, positions, low, middle - 1)?
        };
        let right = if middle == high {
            terms[middle + 1].take().ok_or(Stop)?
        } else {
            self.balance(function, terms, positions, middle + 1, high)?
        };
        Ok(self.call(positions[middle], function, vec![left, right]))
    }

    /// Operands joined by operators that bind at least this tightly.
    fn binary(&mut self, least: u8) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let found = match self.peek() {
                Token::Symbol(s) => {
                    OPERATORS.iter().find(|(symbol, _, level)| symbol == s && *level >= least)
                }
                _ => None,
            };
            let Some((_, function, level)) = found else { return Ok(left) };
            let position = self.position();
            self.advance();
            let right = self.binary(level + 1)?;
            left = self.call(position, function, vec![left, right]);
            if matches!(left.kind, Kind::Invalid) {
                return Err(Stop);
            }
        }
    }

    fn unary(&mut self) -> Parsed {
        let position = self.position();
        for (symbol, function) in [("!", "!_"), ("-", "-_")] {
            let mut count = 0;
            while self.is(symbol) && !self.is_negative_number() {
                self.advance();
                count += 1;
            }
            if count > 0 {
                let operand = self.postfix()?;
                return Ok(if count % 2 == 0 {
                    operand
                } else {
                    self.call(position, function, vec![operand])
                });
            }
        }
        self.postfix()
    }

    fn is_negative_number(&self) -> bool {
        let next = self.tokens.get(self.at + 1).map(|t| &t.token);
        self.is("-") && matches!(next, Some(Token::Int(_) | Token::Float(_)))
    }

    fn postfix(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            let position = self.position();
            if self.eat(".") {
                expr = self.selection(position, expr)?;
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = self.expr()?;
                self.expect("]")?;
                expr = self.call(position, if optional { "_[?_]" } else { "_[_]" }, vec![expr, index]);
            } else if self.is("{")
                && let Some(name) = expr.qualified_name()
            {
                expr = self.structure(&name)?;
            } else {
                return Ok(expr);
            }
            if matches!(expr.kind, Kind::Invalid) && !self.sink.is_empty() {
                return Err(Stop);
            }
        }
    }

    /// What follows a dot: `field`, `?field` or `method(args)`.
    fn selection(&mut self, position: u32, operand: Expr) -> Parsed {
        let optional = self.eat("?");
        let name_at = self.position();
        let name = self.name()?;
        if optional {
            let field = self.literal(name_at, Value::from(name));
            return Ok(self.call(position, "_?._", vec![operand, field]));
        }
        let open = self.position();
        if self.eat("(") {
            let args = self.list_of(")", Self::expr)?;
            return Ok(macros::expand(self, open, &name, Some(operand), args));
        }
        Ok(self.node(
            position,
            Kind::Select { operand: Box::new(operand), field: name.into(), test_only: false },
        ))
    }

    fn name(&mut self) -> Result<String, Stop> {
        match self.peek() {
            Token::Ident(name) => {
                let name = name.clone();
                self.advance();
                Ok(name)
            }
            _ => self.unexpected("IDENTIFIER"),
        }
    }

    fn primary(&mut self) -> Parsed {
        let position = self.position();
        match self.peek().clone() {
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => {
                self.advance();
                let items = self.list_of("]", |p| {
                    let optional = p.eat("?");
                    Ok(Item { value: p.expr()?, optional })
                })?;
                Ok(self.node(position, Kind::List(items)))
            }
            Token::Symbol("{") => {
                self.advance();
                let entries = self.list_of("}", |p| {
                    let optional = p.eat("?");
                    let key = p.expr()?;
                    p.expect(":")?;
                    Ok(Entry { key, value: p.expr()?, optional })
                })?;
                Ok(self.node(position, Kind::Map(entries)))
            }
            Token::Symbol(".") => {
                self.advance();
                self.ident_or_call(".")
            }
            Token::Ident(_) => self.ident_or_call(""),
            _ => self.constant(),
        }
    }

    fn ident_or_call(&mut self, dot: &str) -> Parsed {
        let position = self.position();
        let name = self.name()?;
        if RESERVED.contains(&name.as_str()) {
            return self.stop(position, format!("reserved identifier: {name}"));
        }
        let open = self.position();
        if self.eat("(") {
            let args = self.list_of(")", Self::expr)?;
            return Ok(macros::expand(self, open, &name, None, args));
        }
        Ok(self.ident(position, &format!("{dot}{name}")))
    }

    fn structure(&mut self, name: &str) -> Parsed {
        let position = self.expect("{")?;
        let fields = self.list_of("}", |p| {
            let optional = p.eat("?");
            let name: Name = p.name()?.into();
            let colon = p.expect(":")?;
            let id = p.new_id(colon);
            Ok(Field { id, name, value: p.expr()?, optional })
        })?;
        Ok(self.node(position, Kind::Struct { name: name.into(), fields }))
    }

    /// Comma-separated parts up to `end`; a comma before the end is allowed except for arguments.
    fn list_of<T>(
        &mut self,
        end: &'static str,
        mut part: impl FnMut(&mut Self) -> Result<T, Stop>,
    ) -> Result<Vec<T>, Stop> {
        let mut parts = Vec::new();
        if self.eat(end) {
            return Ok(parts);
        }
        loop {
            parts.push(part(self)?);
            if self.eat(",") {
                if end != ")" && self.eat(end) {
                    return Ok(parts);
                }
                continue;
            }
            self.expect(end)?;
            return Ok(parts);
        }
    }

    fn constant(&mut self) -> Parsed {
        let position = self.position();
        let sign = if self.is_negative_number() { "-" } else { "" };
        if !sign.is_empty() {
            self.advance();
        }
        let integer = |text: &str| match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16),
            None => format!("{sign}{text}").parse(),
        };
        let unsigned = |text: &str| match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        let value = match self.peek() {
            Token::Int(text) => integer(text).map(Value::Int).map_err(|_| "invalid int literal"),
            Token::Uint(text) => unsigned(text).map(Value::Uint).map_err(|_| "invalid uint literal"),
            Token::Float(text) => match format!("{sign}{text}").parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::Double(number)),
                _ => Err("invalid double literal"),
            },
            Token::String(text) => Ok(Value::from(text.clone())),
            Token::Bytes(bytes) => Ok(Value::Bytes(bytes.as_slice().into())),
            Token::Symbol("true") => Ok(Value::Bool(true)),
            Token::Symbol("false") => Ok(Value::Bool(false)),
            Token::Symbol("null") => Ok(Value::Null),
            _ => return self.unexpected(STARTS),
        };
        self.advance();
        match value {
            Ok(value) => Ok(self.literal(position, value)),
            Err(message) => Ok(self.error(position, message)),
        }
    }
}

fn height_below(kind: &Kind) -> u16 {
    let tallest = |exprs: &mut dyn Iterator<Item = &Expr>| exprs.map(|e| e.height).max().unwrap_or(0);
    match kind {
        Kind::Invalid | Kind::Literal(_) | Kind::Ident(_) => 0,
        Kind::Select { operand, .. } => operand.height,
        Kind::Call { target, args, .. } => tallest(&mut target.as_deref().into_iter().chain(args)),
        Kind::List(items) => tallest(&mut items.iter().map(|i| &i.value)),
        Kind::Map(entries) => tallest(&mut entries.iter().flat_map(|e| [&e.key, &e.value])),
        Kind::Struct { fields, .. } => tallest(&mut fields.iter().map(|f| &f.value)),
        Kind::Fold(f) => tallest(&mut [&f.range, &f.init, &f.condition, &f.step, &f.result].into_iter()),
    }
}
