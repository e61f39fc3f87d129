//! The controllers: pure reconcile plans and the thin part that carries them out.
