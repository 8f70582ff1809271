"""How well a trained model does, by tasks on held-out photographs."""
