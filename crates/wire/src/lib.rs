//! What every protocol room shares: reading and writing bytes, and the contract of a session.
