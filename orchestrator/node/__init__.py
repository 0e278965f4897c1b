"""What happens on a node: `runner` supervises one attempt, `zygote` forks it, `trial` calls the trainer."""
