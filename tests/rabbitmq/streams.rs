//! Streams, over their own protocol: what is special about them, the contract, and crashes that repeat
//! nothing.

mod adapter;
mod consumer;
mod contract;
mod crashes;
