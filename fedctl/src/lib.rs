//! fedctl
