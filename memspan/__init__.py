"""memspan: how much memory does success cost?"""

from memspan.envs import register_envs

register_envs()
