//! Weights in HTTPRoutes.
