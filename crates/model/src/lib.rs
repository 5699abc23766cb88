//! The language of the house: names, messages, commands, refusals and limits. No IO, no clock.
