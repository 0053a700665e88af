def deliver_due(*a):
    pass
