//! Pure rules of Latchkey, used by the filter and by the control plane.
