"""What a result was made with: code, git commit, packages, machine."""
