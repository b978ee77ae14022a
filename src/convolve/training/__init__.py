"""Training: losses, optimizers, schedules, the step and the loop around it."""
