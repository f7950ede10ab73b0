//! Faults of the model, each a rule of MODEL left out at one point, for the simulator to find.
