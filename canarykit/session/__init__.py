"""What an experiment is made of. Each piece owns its state and says which lock guards it; each uses only those before it.

`record` and `events` say what happens, `lifetime` whether it goes on, `evidence` what the counts show, `traffic` what the kit
sends itself, `tracker` where the rollout stands, `steering` how its weight is moved, `pilot` how its plan is carried out.
"""
