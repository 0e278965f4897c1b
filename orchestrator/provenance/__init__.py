"""What a result was made with: code, git, packages, machine."""
