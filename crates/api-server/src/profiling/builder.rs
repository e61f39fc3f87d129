//! Profiles put together: each text and each place once.

use std::collections::HashMap;
use std::io::Write;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::Symbol;
use prost::Message;

use super::profile::{Function, Line, Location, Profile, Sample, ValueType};

/// What is counted, and in what unit.
pub type Unit = (&'static str, &'static str);

pub struct Builder {
    profile: Profile,
    strings: Strings,
    places: HashMap<(i64, i64), u64>,
    addresses: HashMap<usize, Vec<u64>>,
}

impl Builder {
    pub fn new(samples: &[Unit], (period, every): (Unit, i64)) -> Self {
        let mut strings = Strings::default();
        let mut unit = |(kind, unit): Unit| ValueType { r#type: strings.id(kind), unit: strings.id(unit) };
        let profile = Profile {
            sample_type: samples.iter().map(|sample| unit(*sample)).collect(),
            period_type: Some(unit(period)),
            period: every,
            ..Profile::default()
        };
        Self { profile, strings, places: HashMap::new(), addresses: HashMap::new() }
    }

    /// What a tool shows when it is not told.
    pub fn shown(&mut self, sample_type: &str) {
        self.profile.default_sample_type = self.strings.id(sample_type);
    }

    /// Where a function has a line.
    pub fn place(&mut self, symbol: &Symbol) -> u64 {
        let (name, line) = (self.strings.id(&symbol.name()), i64::from(symbol.lineno()));
        if let Some(id) = self.places.get(&(name, line)) {
            return *id;
        }
        let id = self.profile.location.len() as u64 + 1;
        let (system_name, filename) =
            (self.strings.id(&symbol.sys_name()), self.strings.id(&symbol.filename()));
        self.profile.function.push(Function { id, name, system_name, filename });
        self.profile.location.push(Location { id, line: vec![Line { function_id: id, line }] });
        self.places.insert((name, line), id);
        id
    }

    /// The places of a stack of return addresses, what was inlined among them.
    pub fn places(&mut self, stack: &[usize]) -> Vec<u64> {
        let mut all = Vec::with_capacity(stack.len());
        for address in stack {
            if !self.addresses.contains_key(address) {
                let symbols = resolved(*address);
                let places = symbols.iter().map(|symbol| self.place(symbol)).collect();
                self.addresses.insert(*address, places);
            }
            all.extend_from_slice(&self.addresses[address]);
        }
        all
    }

    /// The function's name, the file and the line of a place.
    pub fn described(&self, place: u64) -> (&str, &str, i64) {
        let at = place as usize - 1;
        let function = &self.profile.function[at];
        let text = |id: i64| self.strings.0[id as usize].as_str();
        (text(function.name), text(function.filename), self.profile.location[at].line[0].line)
    }

    /// The leaf's place first.
    pub fn sample(&mut self, location_id: Vec<u64>, value: Vec<i64>) {
        self.profile.sample.push(Sample { location_id, value });
    }

    /// The profile as its tools read it.
    pub fn packed(mut self, time: SystemTime, nanos: i64) -> std::io::Result<Vec<u8>> {
        let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (self.profile.time_nanos, self.profile.duration_nanos) = (time.as_nanos() as i64, nanos);
        self.profile.string_table = std::mem::take(&mut self.strings.0);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.profile.encode_to_vec())?;
        encoder.finish()
    }
}

impl Drop for Builder {
    /// What was read of the program to find names is tens of megabytes, and would stay.
    fn drop(&mut self) {
        backtrace::clear_symbol_cache();
    }
}

fn resolved(address: usize) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    backtrace::resolve(address as *mut _, |symbol| {
        symbols.push(Symbol {
            name: symbol.name().map(|name| name.as_bytes().to_vec()),
            addr: symbol.addr(),
            lineno: symbol.lineno(),
            filename: symbol.filename().map(Into::into),
        });
    });
    symbols
}

/// Each text once; the first is empty.
struct Strings(Vec<String>, HashMap<String, i64>);

impl Default for Strings {
    fn default() -> Self {
        Self(vec![String::new()], HashMap::from([(String::new(), 0)]))
    }
}

impl Strings {
    fn id(&mut self, text: &str) -> i64 {
        if let Some(id) = self.1.get(text) {
            return *id;
        }
        let id = self.0.len() as i64;
        self.0.push(text.to_owned());
        self.1.insert(text.to_owned(), id);
        id
    }
}
