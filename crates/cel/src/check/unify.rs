//! Which types may stand for which, and what that says of type parameters.

use crate::types::Type;
use std::collections::HashMap;
use std::sync::Arc;

/// What type parameters stand for so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    bound: HashMap<Arc<str>, Type>,
}

impl Mapping {
    fn find(&self, ty: &Type) -> Option<Type> {
        match ty {
            Type::Param(name) => self.bound.get(name).cloned(),
            _ => None,
        }
    }

    pub(super) fn bind(&mut self, ty: &Type, to: Type) {
        if let Type::Param(name) = ty {
            self.bound.insert(name.clone(), to);
        }
    }

    /// The type with all that is known of its parameters; what is not becomes `dyn` where `settle` says so.
    pub(super) fn substitute(&self, ty: &Type, settle: bool) -> Type {
        if let Some(bound) = self.find(ty) {
            return self.substitute(&bound, settle);
        }
        match ty {
            Type::Param(_) if settle => Type::Dyn,
            other => other.with_params(|param| self.substitute(param, settle)),
        }
    }

    /// Whether a value of one type may stand where the other is wanted; learns from it only if so.
    pub(super) fn assign(&mut self, wanted: &Type, given: &Type) -> bool {
        self.assign_all(std::slice::from_ref(wanted), std::slice::from_ref(given))
    }

    pub(super) fn assign_all(&mut self, wanted: &[Type], given: &[Type]) -> bool {
        let mut trial = self.clone();
        let fits = wanted.len() == given.len() && wanted.iter().zip(given).all(|(w, g)| trial.unify(w, g));
        if fits {
            *self = trial;
        }
        fits
    }

    fn unify(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(_) = b {
            match self.stand_for(a, b) {
                Fit::Yes => return true,
                Fit::Conflict => return false,
                Fit::Cyclic => {}
            }
        }
        if let Type::Param(_) = a {
            return matches!(self.stand_for(b, a), Fit::Yes);
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, Type::Null) => true,
            (Type::Null, other) | (other, Type::Null) => is_nullable(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(x), Type::List(y)) | (Type::Optional(x), Type::Optional(y)) => self.unify(x, y),
            (Type::Map(x), Type::Map(y)) => self.unify(&x.0, &y.0) && self.unify(&x.1, &y.1),
            (a, b) => a == b,
        }
    }

    /// Lets a parameter stand for a type, if that fits what is known of the parameter.
    fn stand_for(&mut self, ty: &Type, param: &Type) -> Fit {
        if ty == param {
            return Fit::Yes;
        }
        if let Some(known) = self.find(param) {
            if *ty == known {
                return Fit::Yes;
            }
            if !self.unify(ty, &known) {
                return Fit::Conflict;
            }
            let general = most_general(ty, &known).clone();
            if !self.occurs(param, &general) {
                self.bind(param, general);
            }
            return Fit::Yes;
        }
        if self.occurs(param, ty) {
            return Fit::Cyclic;
        }
        self.bind(param, ty.clone());
        Fit::Yes
    }

    fn occurs(&self, param: &Type, within: &Type) -> bool {
        if param == within {
            return true;
        }
        match self.find(within) {
            Some(bound) => self.occurs(param, &bound),
            None => within.params().into_iter().any(|inner| self.occurs(param, inner)),
        }
    }
}

enum Fit {
    Yes,
    Conflict,
    Cyclic,
}

fn is_nullable(ty: &Type) -> bool {
    matches!(ty, Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Duration | Type::Timestamp)
}

/// Of two types that unify, the one that says less.
pub(super) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if less_specific(a, b) { a } else { b }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(x), Type::List(y)) | (Type::Optional(x), Type::Optional(y)) => less_specific(x, y),
        (Type::Map(x), Type::Map(y)) => less_specific(&x.0, &y.0) && less_specific(&x.1, &y.1),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
