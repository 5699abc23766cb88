//! Tests of annotations, and of what they say of dead letters and heads.

mod annotations;
mod dialects;
